"""Writes docs/prometheus.md, the table of all metrics of a run, from `sdpo.telemetry.catalogue`.

`python docs/make_prometheus_reference.py` writes it; a test keeps it current.
"""

from pathlib import Path

from sdpo.telemetry.catalogue import SECTIONS, Metric
from sdpo.telemetry.labels import LABELS, MAX_ACTORS, STAGES

TARGET = Path(__file__).resolve().parent / "prometheus.md"
HEAD = f"""# Metrics for Prometheus

A run exports its metrics through Ray: every node of the cluster has an endpoint that Prometheus scrapes (see
[monitoring.md](monitoring.md)). What a *step* measured is in `metrics.jsonl` ([metrics.md](metrics.md)).
This page is made from `sdpo/telemetry/` by `python docs/make_prometheus_reference.py`.

- Ray exports every name with `ray_` before it: `ray_sdpo_step`.
- Every series has the labels `run` (name and incarnation: `demo-1`) and `actor`. Where a series is about the whole run
  its actor is `orchestrator`. The series of the driver name the member: `env-3` also after `env-3-r1` replaced
  it. Series that env workers and engines export themselves have the actor's own name.
- Cardinality is bounded. A value that a label does not know is exported as `other`; so is every actor after the first
  {MAX_ACTORS} that the driver has seen.
- A counter whose labels have known values exists from the start, at 0. A gauge exists from its first value on; Ray
  drops one that was not set for about 20 s, so that those of a run that is over disappear. The driver sets its gauges
  every 5 s; Ray reports every 10 s.
- Ray makes the `_sum` of a histogram from the middles of its buckets: means from it are rough. Seconds that must be
  right are counters.
- Every restart of the learner begins a new incarnation, a new value of `run`. `max by (run) (ray_sdpo_run_active) == 1`
  is the one that goes on; the restart is counted in the one that it ended.

## What an idle actor waits for
`sdpo_actor_seconds_total` splits the time of every actor. It is `busy` while it serves a call of the orchestrator. Else
it waits, for the first stage of this list that is under way anywhere: {", ".join(STAGES)}; for the
`orchestrator` if none is. So an engine that has finished its share waits for `generate` while another one still
samples, and everybody waits for `train` while the learner trains. An env worker is busy with one attempt or with
several.
"""
TAIL = """
## Metrics of vLLM and of Ray
Every engine exports vLLM's own metrics, as `ray_vllm_…`, with `run` and `actor` behind vLLM's labels: running and
waiting requests, KV cache usage, time to first token and so on. A gauge of an engine that samples nothing disappears
until it samples again. Ray exports the metrics of its nodes, tasks and actors as `ray_…`.
"""


def one_cell(values: tuple[str, ...]) -> str:
    return ", ".join(f"`{value}`" for value in values)


def table(metrics: tuple[Metric, ...]) -> list[str]:
    rows = ["| name | kind | unit | labels | of | meaning |", "|---|---|---|---|---|---|"]
    for metric in metrics:
        of = "each env worker" if metric.emitter == "env" else "each actor" if metric.per_actor else "the run"
        cells = (f"`{metric.name}`", metric.kind, metric.unit, one_cell(metric.labels), of, metric.meaning)
        rows.append(f"| {' | '.join(cells)} |")
    return rows


def render() -> str:
    lines = [HEAD]
    for title, metrics in SECTIONS.items():
        lines += [f"## {title}", "", *table(metrics), ""]
    lines += ["## Values of labels", "", "| label | values |", "|---|---|"]
    lines += [f"| `{label}` | {one_cell(values)} |" for label, values in LABELS.items()]
    return "\n".join(lines) + "\n" + TAIL


if __name__ == "__main__":
    TARGET.write_text(render())

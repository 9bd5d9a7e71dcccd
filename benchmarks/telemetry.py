"""Measure the cost of metrics and trace as shares of a run's time, and count its series.

`python -m benchmarks.telemetry [key=value …] > benchmarks/results/telemetry_cpu.json` trains the demo and times what
the driver does in methods of `Telemetry`, as a share of the seconds of the steps of the same run. An env
worker's part is timed apart, by attempt. What vLLM's own stat logger costs is not in it.
"""

import functools
import json
import os
import re
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sdpo.config.load import load_run_config

RUN_FILE = Path(__file__).parents[1] / "examples/tinycoder.yaml"
METHODS = ("hear", "times", "tick", "write_trace")
EVERY_S = 2.0
APART = "timed-apart"


class Stopwatch:
    """Seconds and calls by name; a call inside a timed one belongs to the outer one."""

    def __init__(self) -> None:
        self.seconds, self.calls = Counter[str](), Counter[str]()
        self._local = threading.local()

    def around(self, name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        """`work`, timed."""

        @functools.wraps(work)
        def timed(*arguments: Any, **named: Any) -> Any:
            if getattr(self._local, "running", False):
                return work(*arguments, **named)
            self._local.running, started = True, time.perf_counter()
            try:
                return work(*arguments, **named)
            finally:
                self._local.running = False
                self.seconds[name] += time.perf_counter() - started  # type: ignore[assignment]
                self.calls[name] += 1

        return timed


class Scraper(threading.Thread):
    """Reads the node's endpoint as Prometheus does; `names` and `series` are the most that were seen."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.over = threading.Event()
        self.series = dict[str, set[str]]()

    def run(self) -> None:
        import ray

        while not self.over.wait(EVERY_S):
            if not ray.is_initialized():
                continue
            node = ray.nodes()[0]
            try:
                url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
                with urllib.request.urlopen(url, timeout=5) as answer:
                    self._read(answer.read().decode())
            except OSError:  # the endpoint starts later than Ray
                continue

    def _read(self, text: str) -> None:
        for line in text.splitlines():
            if (found := re.match(r"ray_(sdpo|vllm)_", line)) is not None and APART not in line:
                self.series.setdefault(found[1], set()).add(line.rpartition(" ")[0])

    def counts(self) -> dict[str, int]:
        """Metrics and series of ours and of vLLM; a histogram's series are counted with all of its buckets."""
        found = {}
        for family, series in self.series.items():
            names = {re.sub(r"_(bucket|count|sum)$", "", line.partition("{")[0]) for line in series}
            found |= {f"{family}_metrics": len(names), f"{family}_series": len(series)}
        return found


def env_seconds(count: int = 20_000) -> float:
    """Return the cost of an env worker's metrics per attempt; Ray must be running."""
    from env_workers.metrics import EnvMetrics

    metrics = EnvMetrics(APART, "env-0")
    started = time.perf_counter()
    for _ in range(count):
        metrics.executed(0.02)
        metrics.recycled({"executions": 0})
        metrics.judged("passed")
    return (time.perf_counter() - started) / count


def main(overrides: list[str]) -> dict[str, Any]:
    """Train, and print what was measured."""
    from orchestrator import train
    from orchestrator.actors.telemetry import open_telemetry
    from orchestrator.run_dir.metrics_log import read_metrics
    from orchestrator.telemetry.run_telemetry import Telemetry

    watch, scraper, env_s = Stopwatch(), Scraper(), list[float]()
    for name in METHODS:
        setattr(Telemetry, name, watch.around(name, getattr(Telemetry, name)))

    def opened(*arguments: Any) -> Telemetry:
        env_s.append(env_seconds())
        return open_telemetry(*arguments)

    train.open_telemetry = opened
    scraper.start()
    with tempfile.TemporaryDirectory() as folder:
        config = load_run_config(RUN_FILE, [*overrides, f"dir={folder}", "name=telemetry"])
        run_dir = train.run(config)
        scraper.over.set()
        records = [r for r in read_metrics(Path(run_dir) / "metrics.jsonl") if r["step"] > 0]
        trace_bytes = sum(file.stat().st_size for file in (Path(run_dir) / "trace").iterdir())
    steps_s = sum(r["time/step_s"] for r in records)
    attempts = sum(r["attempts/sampled"] + r.get("heldout/samples", 0) for r in records)
    driver_s = sum(watch.seconds.values())
    return {
        "steps": len(records),
        "attempts": attempts,
        "steps_s": steps_s,
        "driver_telemetry_s": driver_s,
        "driver_share_of_steps": driver_s / steps_s,
        "env_worker_s_per_attempt": env_s[0],
        "env_worker_share_of_steps": env_s[0] * attempts / steps_s,
        "trace_bytes_per_attempt": trace_bytes / attempts,
        "seconds_by_method": dict(watch.seconds),
        "calls_by_method": dict(watch.calls),
        "load_average": os.getloadavg()[0],
        **scraper.counts(),
    }


if __name__ == "__main__":
    out = sys.stdout
    sys.stdout = sys.stderr
    json.dump(main(sys.argv[1:]), out, indent=1)

"""Figures of memory and throughput."""

from orchestrator.report.curves import metric_figure, not_recorded
from orchestrator.report.data import Points, Report, Run
from orchestrator.report.figure import Figure
from orchestrator.report.lines import Axis, line_spec, lines_of

_MIB = 2**20
_SPEEDS = {
    "speed/generated_tokens_per_s": (
        "Tokens generated",
        "Tokens that the model wrote, by the time from a batch's start to its last group.",
    ),
    "speed/trained_tokens_per_s": ("Tokens trained", "Tokens through the learner, prompts included, by its time."),
}


def memory_figures(report: Report) -> list[Figure]:
    """One of every role that was measured."""
    metrics = [name for name in report.metrics("memory/") if name.endswith("_bytes")]
    if not metrics:
        return [Figure(name="memory", title="Memory by role", caption="Not recorded: memory/*_bytes.")]
    return [_memory_figure(report, metric) for metric in metrics]


def speed_figures(report: Report) -> list[Figure]:
    """One of every speed that was measured."""
    metrics = report.metrics("speed/")
    if not metrics:
        return [Figure(name="speed", title="Tokens a second", caption="Not recorded: speed/*.")]
    figures = []
    for metric in metrics:
        title, caption = _SPEEDS.get(metric, (metric, ""))
        axis = Axis(title="tokens a second" if metric.endswith("tokens_per_s") else metric, low=0.0)
        figures.append(metric_figure(report, metric, title, axis, better="higher is faster", caption=caption))
    return figures


def _memory_figure(report: Report, metric: str) -> Figure:
    def mebibytes(run: Run) -> Points:
        return [(step, None if value is None else value / _MIB) for step, value in run.points(metric)]

    role = metric.removeprefix("memory/").removesuffix("_bytes")
    return Figure(
        name=f"memory-{role}".replace("_", "-"),
        title=f"Memory: {role.replace('_', ' ')}",
        better="lower is better",
        caption=not_recorded(metric, report.missing(metric), report.runs),
        spec=line_spec(report, lines_of(report, mebibytes), Axis(title="MiB", low=0.0)),
    )

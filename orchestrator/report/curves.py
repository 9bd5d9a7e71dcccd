"""Figures of single metrics, and the words that go with what is missing."""

from collections.abc import Iterable, Sequence

from orchestrator.report.data import Report, Run
from orchestrator.report.figure import Figure
from orchestrator.report.lines import Axis, Mark, line_spec, metric_lines

_ALARMS = {
    "rollout/pass_rate": ("pass_rate_collapse",),
    "heldout/pass@1": ("heldout_collapse",),
    "train/entropy": ("entropy_collapse",),
    "rollout/response_tokens": ("length_collapse",),
    "signal/samples_fraction": ("no_signal",),
    "train/engine_gap_mean": ("mismatch",),
    "train/grad_norm": ("not_finite",),
}
"""The alarms that are marked on a metric's curve."""
MOST_NAMES = 6


def metric_figure(
    report: Report,
    metric: str,
    title: str,
    axis: Axis,
    *,
    better: str = "",
    caption: str = "",
    why_missing: str = "",
    thresholds: Iterable[tuple[float, str]] = (),
) -> Figure:
    """The curve of one metric over all runs. `why_missing` explains runs that have none."""
    marks = alarm_marks(report, metric)
    spec = line_spec(report, metric_lines(report, metric), axis, thresholds=thresholds, marks=marks)
    words = [
        caption,
        "Triangles: an alarm about this began." if marks else "",
        left_out(report, metric) if axis.log else "",
    ]
    words += [not_recorded(metric, report.missing(metric), report.runs, why_missing)]
    return Figure(
        name=metric.replace("/", "-").replace("@", "-at-").replace("_", "-"),
        title=title,
        better=better,
        caption=" ".join(filter(None, words)),
        spec=spec,
    )


def alarm_marks(report: Report, metric: str) -> list[Mark]:
    """Where alarms about `metric` began, if the metric has a value at that step."""
    marks = []
    for group in report.groups:
        for run in group.runs:
            values = dict(run.points(metric))
            for alarm in run.view.alarms:
                value = values.get(alarm["step"])
                if alarm["name"] in _ALARMS.get(metric, ()) and value is not None:
                    seen = alarm["message"].split("; threshold")[0]
                    marks.append(
                        Mark(
                            run=run.label,
                            group=group.label,
                            step=alarm["step"],
                            value=value,
                            alarm=alarm["name"],
                            message=seen,
                        )
                    )
    return marks


def not_recorded(metric: str, missing: Sequence[Run], runs: Sequence[Run], why: str = "") -> str:
    """A sentence about the runs that lack a metric; "" if none does."""
    if not missing:
        return ""
    names = [run.label for run in missing]
    listed = ", ".join(names[:MOST_NAMES]) + (f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else "")
    whom = "" if len(missing) == len(runs) else f" by {listed}"
    return f"Not recorded{whom}: {metric}{f' ({why})' if why else ''}."


def left_out(report: Report, metric: str) -> str:
    """A sentence about values that a logarithmic axis cannot show; "" if there are none."""
    count = sum(value is not None and value <= 0 for run in report.runs for _, value in run.points(metric))
    return f"Values of 0 are not shown ({count}): the axis is logarithmic." if count else ""

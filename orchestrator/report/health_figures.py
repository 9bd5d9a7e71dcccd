"""Charts of the health signals, with the thresholds of their alarms."""

import statistics
from collections.abc import Sequence

from orchestrator.report.curves import metric_figure, not_recorded
from orchestrator.report.data import Points, Report, Run
from orchestrator.report.figure import Figure
from orchestrator.report.lines import Axis, Series, line_spec, lines_of, threshold_lines
from sdpo.config import HealthConfig

_WATCHED = {
    "rollout/pass_rate": ("Pass rate against its alarm", "pass_rate_share", Axis(title="share", low=0.0, high=1.0)),
    "train/entropy": ("Entropy against its alarm", "entropy_share", Axis(title="nats", low=0.0)),
    "rollout/response_tokens": ("Response length against its alarm", "length_share", Axis(title="tokens", low=0.0)),
}
"""Alarms whose threshold moves with the run: title, key in `health`."""
_LIMITED = (
    ("signal/samples_fraction", "Attempts with a signal", "min_signal_share", Axis(title="share", low=0.0, high=1.0)),
    ("train/engine_gap_mean", "Engine against learner, mean", "max_engine_gap_mean", Axis(title="nats", log=True)),
    ("train/engine_gap_p99", "Engine against learner, worst 1 %", "max_engine_gap_p99", Axis(title="nats", log=True)),
)
"""Alarms with a fixed limit."""


def health_figures(report: Report) -> list[Figure]:
    """Moving thresholds, fixed ones, and the signals that have none."""
    figures = [_watched(report, metric) for metric in _WATCHED]
    for metric, title, key, axis in _LIMITED:
        better = "higher is better" if key.startswith("min") else "lower is better"
        figures.append(metric_figure(report, metric, title, axis, better=better, thresholds=_limits(report, key)))
    figures.append(
        metric_figure(
            report, "train/grad_norm", "Gradient norm, before clipping", Axis(title="norm", log=True), better="steady"
        )
    )
    return figures + _caps(report)


def moving_threshold(metric: str, run: Run) -> Points:
    """Below which the window's mean raised the alarm of a watched metric, at the steps where it could be raised.

    The same windows as in `sdpo.health`: entropy and length are compared with the median of the steps before the
    window, the pass rate with the best window before it.
    """
    health: HealthConfig = run.view.config.health
    share: float | None = getattr(health, _WATCHED[metric][1])
    points = _finite(run.points(metric))
    if share is None:
        return []
    found: Points = []
    means = [statistics.fmean(window) for window in _windows(points, health.window_steps)]
    for end in range(2 * health.window_steps, len(points) + 1):
        if metric == "rollout/pass_rate":
            reference = max(means[: end - 2 * health.window_steps + 1])
        else:
            before = [value for _, value in points[: end - health.window_steps]]
            reference = statistics.median(before[-health.reference_steps :])
        found.append((points[end - 1][0], share * reference))
    return found


def window_mean(metric: str, run: Run) -> Points:
    """Mean of the last `health.window_steps` values, what the alarm looks at."""
    width = run.view.config.health.window_steps
    points = _finite(run.points(metric))
    return [
        (points[end + width - 1][0], statistics.fmean(window)) for end, window in enumerate(_windows(points, width))
    ]


def _watched(report: Report, metric: str) -> Figure:
    title, key, axis = _WATCHED[metric]
    value: Series = lambda run: window_mean(metric, run)  # noqa: E731
    lines = lines_of(report, value) + threshold_lines(report, lambda run: moving_threshold(metric, run))
    excuse = "" if key == "pass_rate_share" else " and the pass rate does not rise"
    chance = " by more than chance" if key == "pass_rate_share" else ""
    return Figure(
        name="watched-" + metric.replace("/", "-").replace("_", "-"),
        title=title,
        better="above the dotted line is healthy",
        caption=f"Solid: mean over the window (health.window_steps). Dotted: the alarm's threshold (health.{key}); an "
        f"alarm begins when the solid line falls below{chance}{excuse}. "
        + not_recorded(metric, report.missing(metric), report.runs),
        spec=line_spec(report, lines, axis),
    )


def _limits(report: Report, key: str) -> list[tuple[float, str]]:
    """Every limit that a run has."""
    limits = {getattr(run.view.config.health, key) for run in report.runs} - {None}
    return [(float(limit), f"health.{key}={limit:g}") for limit in sorted(limits)]


def _caps(report: Report) -> list[Figure]:
    """Caps that held a token back; the others are named in words."""
    figures, idle = [], []
    for metric in [name for name in report.metrics("train/") if name.endswith("_clipped_fraction")]:
        if any(value for run in report.runs for _, value in run.points(metric)):
            title, axis = f"Tokens at a cap: {metric}", Axis(title="share of tokens", low=0.0)
            figures.append(metric_figure(report, metric, title, axis, better="lower is better"))
        else:
            idle.append(metric)
    if idle:
        words = f"No token was at this cap in any step: {', '.join(idle)}."
        figures.append(Figure(name="idle-caps", title="Tokens at a cap", better="lower is better", caption=words))
    return figures


def _finite(points: Points) -> list[tuple[float, float]]:
    return [(step, value) for step, value in points if value is not None]


def _windows(points: Sequence[tuple[float, float]], width: int) -> list[list[float]]:
    values = [value for _, value in points]
    return [values[start : start + width] for start in range(len(values) - width + 1)]

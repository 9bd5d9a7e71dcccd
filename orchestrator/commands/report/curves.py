"""Draw the curves of metrics, with the alarms of `sdpo.health.RULES` and the words for what is missing."""

import dataclasses
from fnmatch import fnmatchcase
from typing import Any

from orchestrator.commands.report.charts import Chart
from orchestrator.commands.report.data import Points, Report, Run
from orchestrator.commands.report.figure import Figure
from orchestrator.commands.report.lines import Mark, line_spec, lines_of, metric_lines, threshold_lines
from sdpo.health import RULES, History, Rule, lowest_healthy
from sdpo.show import show_names

MOST_NAMES = 6
"""Names that a caption lists before it counts the rest."""
NO_TEACHER = " (the objective has no teacher in hindsight)"


def curve_figures(report: Report, chart: Chart) -> list[Figure]:
    """Return the figure of a row of the table; for a metric with `*`, one for every recorded metric that matches.

    Of the latter, metrics that are 0 in every step are named in words.
    """
    if chart.optional and not any(run.finite(chart.metric) for run in report.runs):
        return []
    if "*" not in chart.metric:
        return [_curve(report, chart)]
    prefix, suffix = chart.metric.split("*")
    figures, zero = [], []
    for metric in report.metrics():
        if fnmatchcase(metric, chart.metric):
            if any(value for run in report.runs for _, value in run.points(metric)):
                part = metric.removeprefix(prefix).removesuffix(suffix).replace("_", " ")
                one = dataclasses.replace(chart, metric=metric, title=chart.title.format(part))
                figures.append(_curve(report, one))
            else:
                zero.append(metric)
    if zero:
        all_of_them = dataclasses.replace(chart, title=chart.title.partition(":")[0])
        figures.append(_figure(all_of_them, f"0 in every step: {', '.join(zero)}."))
    return figures


def _curve(report: Report, chart: Chart) -> Figure:
    metric, axis, other = chart.metric, chart.axis, chart.equal_to
    if other and all(record.get(metric) == record.get(other) for run in report.runs for record in run.view.metrics):
        return _figure(chart, f"Equal to {other} in every step.")
    missing = not_recorded(report, metric)
    if chart.moving:
        rule = next(rule for rule in RULES.values() if rule.reference is not None and metric in rule.thresholds)
        key = f"health.{rule.thresholds[metric]}"
        words = (
            f"Solid: mean over health.window_steps. Dotted: threshold ({key}) of the alarm, raised when {rule.text}."
        )
        lines = lines_of(report, lambda run: window_and_threshold(rule, metric, run)[0])
        lines += threshold_lines(report, lambda run: window_and_threshold(rule, metric, run)[1])
        return _figure(chart, words, missing, spec=line_spec(report, lines, axis))
    marks = alarm_marks(report, metric)
    below = sum(value <= 0 for run in report.runs for _, value in run.finite(metric))
    triangles = "Triangles: an alarm about this metric began." if marks else ""
    zeros = f"Values of 0 are not shown ({below}): the axis is logarithmic." if axis.log and below else ""
    spec = line_spec(report, metric_lines(report, metric), axis, thresholds=_limits(report, metric), marks=marks)
    return _figure(chart, chart.caption, triangles, zeros, missing, spec=spec)


def _figure(chart: Chart, *words: str, spec: dict[str, Any] | None = None) -> Figure:
    """Return the figure of a chart; without `spec` its caption is all that is shown."""
    caption, name = " ".join(filter(None, words)), _name(chart.metric)
    name = f"watched-{name}" if chart.moving else name
    return Figure(name=name, title=chart.title, better=chart.better, caption=caption, spec=spec)


def window_and_threshold(rule: Rule, metric: str, run: Run) -> tuple[Points, Points]:
    """Return the mean over the window, and the value below which it raises the alarm, at the steps that have them."""
    config, history = run.view.config.health, History()
    share: float | None = getattr(config, rule.thresholds[metric])
    means: Points = []
    thresholds: Points = []
    for step, value in run.finite(metric):
        history.add({metric: value})
        means += [(step, mean) for mean in history.window_means(metric, config.window_steps)[-1:]]
        if share is not None and rule.reference and (reference := rule.reference(history, config, metric)) is not None:
            thresholds.append((step, lowest_healthy(reference, share)))
    return means, thresholds


def alarm_marks(report: Report, metric: str) -> list[Mark]:
    """Return where alarms about `metric` began, if the metric has a value at that step."""
    names = [rule.name for rule in RULES.values() if metric in rule.thresholds]
    return [
        Mark(alarm["step"], value, group.label, run.label, alarm["name"], alarm["message"].split("; threshold")[0])
        for group in report.groups
        for run in group.runs
        for alarm in run.view.alarms
        if alarm["name"] in names and (value := dict(run.points(metric)).get(alarm["step"])) is not None
    ]


def not_recorded(report: Report, metric: str) -> str:
    """Return a sentence about the runs that lack a metric; "" if none does."""
    missing = [run.label for run in report.missing(metric)]
    if not missing:
        return ""
    runs = "" if len(missing) == len(report.runs) else f" by {show_names(missing, MOST_NAMES)}"
    return f"Not recorded{runs}: {metric}{NO_TEACHER if metric.startswith('train/teacher_') else ''}."


def _limits(report: Report, metric: str) -> list[tuple[float, str]]:
    """Return the fixed limits of the alarms about `metric`, every one that a run has: (value, label)."""
    keys = {key for rule in RULES.values() if (key := rule.thresholds.get(metric, "")).startswith(("min_", "max_"))}
    limits = {(key, getattr(run.view.config.health, key)) for run in report.runs for key in keys}
    return sorted((float(limit), f"health.{key}={limit:g}") for key, limit in limits if limit is not None)


def _name(metric: str) -> str:
    """Return the name of a metric's figure, in letters and dashes."""
    short = metric.replace("/*", "").removesuffix("_bytes")
    return short.replace("@", "-at-").translate(str.maketrans("/_", "--"))

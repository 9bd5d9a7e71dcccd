"""Draw curves over steps: one colour for a group of runs, thin lines for its seeds, a band for the interval."""

from collections import Counter
from collections.abc import Callable, Container, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

import altair as alt

from orchestrator.commands.report.charts import Axis
from orchestrator.commands.report.data import Group, Points, Report, Run, binned, mean_over_runs
from orchestrator.commands.report.figure import step_ticks, table, with_data

FEW_POINTS = 40
"""The points of a line are drawn if it has at most this many."""
ALARM_COLOUR = "#C0392B"
Series = Callable[[Run], Points]


class Mark(NamedTuple):
    """The beginning of an alarm: `value` is where the run's curve is at that step."""

    step: int
    value: float
    group: str
    run: str
    alarm: str
    message: str


class Point(NamedTuple):
    """A point of a line. `role`: the line is a run on its own, one of several seeds, their mean, or a threshold.

    `low`, `high`: the interval of the value.
    """

    step: float
    run: str
    group: str
    role: Literal["single", "seed", "mean", "threshold"]
    value: float | None
    low: float | None = None
    high: float | None = None


def lines_of(report: Report, series: Series, low: Series | None = None, high: Series | None = None) -> list[Point]:
    """Return a line for every run and, where several seeds of a group have values, their mean with its interval.

    `low` and `high`: the interval of a single run, at the same steps as `series`.
    """
    points = []
    for group in report.groups:
        drawn = {run.label: binned(series(run), report.bin_steps) for run in group.runs}
        with_values = [line for line in drawn.values() if any(value is not None for _, value in line)]
        role: Literal["single", "seed"] = "seed" if len(with_values) > 1 else "single"
        for run in group.runs:
            lows, highs = (dict(binned(f(run), report.bin_steps)) if f else {} for f in (low, high))
            for step, value in drawn[run.label]:
                points.append(Point(step, run.label, group.label, role, value, lows.get(step), highs.get(step)))
        if len(with_values) > 1:
            label = f"mean of {len(with_values)} seeds"
            points += [
                Point(s, label, group.label, "mean", mean, lo, hi) for s, mean, lo, hi in mean_over_runs(with_values)
            ]
    return points


def metric_lines(report: Report, metric: str) -> list[Point]:
    """Return `lines_of` a recorded metric; `METRIC_low` and `METRIC_high` are its interval where they were recorded."""
    low, high = f"{metric}_low", f"{metric}_high"
    return lines_of(report, lambda r: r.points(metric), lambda r: r.points(low), lambda r: r.points(high))


def threshold_lines(report: Report, threshold: Series) -> list[Point]:
    """Return a line for every run with a threshold that moves with the run."""
    return [
        Point(step, f"{run.label}: threshold", group.label, "threshold", value)
        for group in report.groups
        for run in group.runs
        for step, value in binned(threshold(run), report.bin_steps)
    ]


def line_spec(
    report: Report,
    lines: Sequence[Point],
    axis: Axis,
    *,
    thresholds: Sequence[tuple[float, str]] = (),
    marks: Sequence[Mark] = (),
) -> dict[str, Any] | None:
    """Return a Vega-Lite spec, or None if no line has a value that can be drawn. `thresholds`: (value, label)."""
    draw = partial(_drawable, axis)
    points = [p._replace(value=draw(p.value), low=draw(p.low), high=draw(p.high)) for p in lines]
    shown = [point for point in points if point.value is not None]
    if not shown:
        return None
    banded = any(point.role != "seed" and point.low is not None for point in points)
    few = max(Counter((point.group, point.run) for point in points).values()) <= FEW_POINTS
    domain = _domain(axis, [point.value for point in shown], thresholds)
    base = _base(report.groups, axis, domain, step_ticks(point.step for point in points))
    chart = alt.layer(
        *_thresholds(thresholds),
        *_curves(base, report.groups, {point.role for point in shown}, axis.title if banded else None),
        _hovered(base, 36 if few else 0),
        *_marks(report.groups, marks),
    )
    spec = with_data(chart, table(Point._fields, ("step", "value", "low", "high"), points))
    for layer in spec["layer"]:
        if layer.get("data") == {"name": "empty"}:  # how Altair names data that are the whole chart's
            del layer["data"]
    return spec


def _drawable(axis: Axis, value: float | None) -> float | None:
    return None if value is None or (axis.log and value <= 0) else value / axis.unit


def _domain(axis: Axis, values: Sequence[float | None], limits: Sequence[tuple[float, str]]) -> list[float]:
    """Return the ends of the axis: its own where it has both, else those of the values. A wide band is cut."""
    if axis.low is not None and axis.high is not None:
        return [axis.low, axis.high]
    shown = [value for value in (*values, *(value for value, _ in limits), axis.low, axis.high) if value is not None]
    return [min(shown), max(shown)]


def _base(groups: Sequence[Group], axis: Axis, domain: list[float], ticks: list[int]) -> alt.Chart:
    kind: Literal["log", "linear"] = "log" if axis.log else "linear"
    scale = alt.Scale(
        type=kind, zero=alt.Undefined if axis.log else False, domain=domain, nice=axis.low is None or axis.high is None
    )
    chart: alt.Chart = alt.Chart().encode(
        x=alt.X(
            "step:Q",
            title="step",
            scale=alt.Scale(nice=False),
            axis=alt.Axis(values=ticks, labelOverlap=True, format="d"),
        ),
        y=alt.Y("value:Q", title=axis.title, scale=scale, axis=alt.Axis(format="~e") if axis.log else alt.Axis()),
        color=_colour(groups),
        detail="run:N",
    )
    return chart


def _curves(base: alt.Chart, groups: Sequence[Group], roles: Container[str], band: str | None) -> list[alt.Chart]:
    """Return the layers from the back to the front: band, single seeds, thresholds, single runs, means.

    `band`: the title of the vertical axis, or None if no line has an interval.
    """
    scale = alt.Scale(domain=[g.label for g in groups], range=[list(g.dash) for g in groups])
    dash = alt.StrokeDash("group:N", scale=scale, legend=None)
    dashed = base.encode(strokeDash=dash) if any(g.dash != groups[0].dash for g in groups) else base
    area = base.transform_filter("datum.role != 'seed' && isValid(datum.low)").mark_area(opacity=0.18, clip=True)
    drawn = {
        "seed": dashed.mark_line(strokeWidth=1, opacity=0.45, clip=True),
        "threshold": base.mark_line(strokeWidth=1.5, strokeDash=[2, 3], opacity=0.9),
        "single": dashed.mark_line(strokeWidth=2, clip=True),
        "mean": dashed.mark_line(strokeWidth=2.5, clip=True),
    }
    lines = [chart.transform_filter(f"datum.role == '{role}'") for role, chart in drawn.items() if role in roles]
    return lines if band is None else [area.encode(y=alt.Y("low:Q", title=band), y2="high:Q"), *lines]


def _hovered(base: alt.Chart, point_size: int) -> alt.Chart:
    """Return the points of all lines; the one nearest to the pointer is enlarged and shows its values."""
    near = alt.selection_point(name="near", on="pointerover", clear="pointerout", nearest=True, empty=False)
    interval = "isValid(datum.low) ? format(datum.low, '.4~g') + ' to ' + format(datum.high, '.4~g') : '–'"
    points: alt.Chart = (
        base.transform_filter("isValid(datum.value)")
        .transform_calculate(interval=interval)
        .mark_point(filled=True, opacity=1)
        .encode(
            size=alt.condition(near, alt.value(90), alt.value(point_size)),
            tooltip=[
                alt.Tooltip("group:N", title="runs"),
                alt.Tooltip("run:N", title="run"),
                alt.Tooltip("step:Q", title="step", format="~g"),
                alt.Tooltip("value:Q", title="value", format=".4~g"),
                alt.Tooltip("interval:N", title="95 % interval"),
            ],
        )
        .add_params(near)
    )
    return points


def _colour(groups: Sequence[Group]) -> alt.Color:
    scale = alt.Scale(domain=[g.label for g in groups], range=[g.colour for g in groups])
    return alt.Color("group:N", scale=scale, title=None)


def _thresholds(rows: Sequence[tuple[float, str]]) -> list[alt.Chart]:
    if not rows:
        return []
    base = alt.Chart(_data(("value", "label"), ("value",), rows)).encode(y="value:Q")
    label = alt.Tooltip("label:N", title="threshold")
    text = base.mark_text(align="left", dx=4, dy=-6, color=ALARM_COLOUR, fontSize=11)
    return [
        base.mark_rule(strokeDash=[5, 4], color=ALARM_COLOUR, strokeWidth=1.5).encode(tooltip=label),
        text.encode(text="label:N", x=alt.value(0), tooltip=label),
    ]


def _marks(groups: Sequence[Group], marks: Sequence[Mark]) -> list[alt.Chart]:
    if not marks:
        return []
    points = alt.Chart(_data(Mark._fields, ("step", "value"), marks)).mark_point(
        shape="triangle-down", size=130, filled=True, stroke=ALARM_COLOUR, strokeWidth=2, opacity=1
    )
    tooltip = ["alarm:N", "run:N", "step:Q", "message:N"]
    return [points.encode(x="step:Q", y="value:Q", color=_colour(groups), tooltip=tooltip)]


def _data(columns: Sequence[str], numbers: Sequence[str], rows: Sequence[Sequence[Any]]) -> alt.InlineData:
    content = table(columns, numbers, rows)
    return alt.InlineData(values=content["values"], format=alt.CsvDataFormat(**content["format"]))

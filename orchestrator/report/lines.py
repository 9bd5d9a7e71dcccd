"""Curves over steps: one colour a group of runs, thin lines for its seeds, a band for the interval."""

from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import altair as alt

from orchestrator.report.data import Group, Points, Report, Run, binned, mean_over_runs
from orchestrator.report.figure import HEIGHT_PX, table

FEW_POINTS = 40
"""A line with at most so many points shows them."""
Series = Callable[[Run], Points]


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """The vertical one. `low`, `high`: ends that are always shown. `log` needs values above 0."""

    title: str
    low: float | None = None
    high: float | None = None
    log: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """An alarm that began in `run` at `step`, where the curve is at `value`."""

    run: str
    group: str
    step: int
    value: float
    alarm: str
    message: str


@dataclass(frozen=True, slots=True)
class Line:
    """`role`: a run on its own, one of several seeds, their mean, or a threshold. Points: step, value, low, high."""

    role: Literal["single", "seed", "mean", "threshold"]
    group: str
    label: str
    points: Sequence[tuple[float, float | None, float | None, float | None]]


def lines_of(report: Report, series: Series, low: Series | None = None, high: Series | None = None) -> list[Line]:
    """A line a run and, where several seeds of a group have values, their mean with its interval over these seeds.

    `low` and `high`: the interval of a single run, at the same steps as `series`.
    """
    lines = []
    for group in report.groups:
        drawn = {run.label: binned(series(run), report.bin_steps) for run in group.runs}
        with_values = [line for line in drawn.values() if any(value is not None for _, value in line)]
        role: Literal["single", "seed"] = "seed" if len(with_values) > 1 else "single"
        for run in group.runs:
            lows, highs = (dict(binned(f(run), report.bin_steps)) if f else {} for f in (low, high))
            points = [(s, value, lows.get(s), highs.get(s)) for s, value in drawn[run.label]]
            lines.append(Line(role, group.label, run.label, points))
        if len(with_values) > 1:
            label = f"mean of {len(with_values)} seeds"
            lines.append(Line("mean", group.label, label, mean_over_runs(with_values)))
    return lines


def metric_lines(report: Report, metric: str) -> list[Line]:
    """As `lines_of`, of a recorded metric; `METRIC_low` and `METRIC_high` are its interval where they were recorded."""
    low, high = f"{metric}_low", f"{metric}_high"
    return lines_of(report, lambda r: r.points(metric), lambda r: r.points(low), lambda r: r.points(high))


def threshold_lines(report: Report, threshold: Series) -> list[Line]:
    """A threshold that moves with the run: one a run."""
    return [
        Line(
            "threshold",
            group.label,
            f"{run.label}: threshold",
            [(step, value, None, None) for step, value in binned(threshold(run), report.bin_steps)],
        )
        for group in report.groups
        for run in group.runs
    ]


def line_spec(
    report: Report,
    lines: Sequence[Line],
    axis: Axis,
    *,
    thresholds: Iterable[tuple[float, str]] = (),
    marks: Sequence[Mark] = (),
) -> dict[str, Any] | None:
    """A Vega-Lite spec, or None if no line has a value that can be drawn. `thresholds`: (value, label)."""
    rows = [
        (step, line.label, line.group, line.role, *(_drawable(number, axis) for number in (value, low, high)))
        for line in lines
        for step, value, low, high in line.points
    ]
    roles = {str(row[3]) for row in rows if row[4] is not None}
    if not roles:
        return None
    columns, numbers = ("step", "run", "group", "role", "value", "low", "high"), ("step", "value", "low", "high")
    banded = any(role != "seed" and low is not None for _, _, _, role, _, low, _ in rows)
    few = max(len(line.points) for line in lines) <= FEW_POINTS
    limits = list(thresholds)
    base = _base(report.groups, axis, _domain(axis, rows, limits))
    chart = alt.layer(
        *_thresholds(limits),
        *([_band(base, axis)] if banded else []),
        *_curves(base, report.groups, roles),
        _hovered(base, 36 if few else 0),
        *_marks(report.groups, marks),
    ).properties(width="container", height=HEIGHT_PX)
    spec: dict[str, Any] = chart.to_dict()
    del spec["config"], spec["$schema"]
    for layer in spec["layer"]:
        if layer.get("data") == {"name": "empty"}:  # Altair's word for data that are the whole chart's
            del layer["data"]
    return spec | {"data": table(columns, numbers, rows)}


def _drawable(value: float | None, axis: Axis) -> float | None:
    return None if value is None or (axis.log and value <= 0) else value


def _domain(axis: Axis, rows: Sequence[Sequence[Any]], limits: Sequence[tuple[float, str]]) -> list[float]:
    """From the smallest to the largest value; the axis' own ends where it has both. A wide band is cut."""
    if axis.low is not None and axis.high is not None:
        return [axis.low, axis.high]
    shown = [value for row in rows if (value := row[4]) is not None]
    shown += [value for value, _ in limits] + [end for end in (axis.low, axis.high) if end is not None]
    return [min(shown), max(shown)]


def _base(groups: Sequence[Group], axis: Axis, domain: list[float]) -> alt.Chart:
    kind: Literal["log", "linear"] = "log" if axis.log else "linear"
    scale = alt.Scale(
        type=kind, zero=alt.Undefined if axis.log else False, domain=domain, nice=axis.low is None or axis.high is None
    )
    chart: alt.Chart = alt.Chart().encode(
        x=alt.X("step:Q", title="step", scale=alt.Scale(nice=False), axis=alt.Axis(tickMinStep=1, format="d")),
        y=alt.Y("value:Q", title=axis.title, scale=scale, axis=alt.Axis(format="~e") if axis.log else alt.Axis()),
        color=_colour(groups),
        detail="run:N",
    )
    return chart


def _band(base: alt.Chart, axis: Axis) -> alt.Chart:
    chart: alt.Chart = (
        base.transform_filter("datum.role != 'seed' && isValid(datum.low)")
        .mark_area(opacity=0.18, clip=True)
        .encode(y=alt.Y("low:Q", title=axis.title), y2="high:Q")
    )
    return chart


def _curves(base: alt.Chart, groups: Sequence[Group], roles: Container[str]) -> list[alt.Chart]:
    """Single seeds below, thresholds, then what a person looks at first."""
    dashed = base.encode(strokeDash=_dash(groups)) if any(g.dash != groups[0].dash for g in groups) else base
    drawn = {
        "seed": dashed.mark_line(strokeWidth=1, opacity=0.45, clip=True),
        "threshold": base.mark_line(strokeWidth=1.5, strokeDash=[2, 3], opacity=0.9),
        "single": dashed.mark_line(strokeWidth=2, clip=True),
        "mean": dashed.mark_line(strokeWidth=2.5, clip=True),
    }
    return [chart.transform_filter(f"datum.role == '{role}'") for role, chart in drawn.items() if role in roles]


def _hovered(base: alt.Chart, point_size: int) -> alt.Chart:
    """Points of all lines: the one nearest to the pointer is shown, with its values."""
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
    return alt.Color("group:N", scale=scale, legend=alt.Legend(title=None, orient="bottom", labelLimit=400))


def _dash(groups: Sequence[Group]) -> alt.StrokeDash:
    scale = alt.Scale(domain=[g.label for g in groups], range=[list(g.dash) for g in groups])
    return alt.StrokeDash("group:N", scale=scale, legend=None)


def _thresholds(rows: Sequence[tuple[float, str]]) -> list[alt.Chart]:
    if not rows:
        return []
    base = alt.Chart(_data(("value", "label"), ("value",), rows)).encode(y="value:Q")
    label = alt.Tooltip("label:N", title="threshold")
    return [
        base.mark_rule(strokeDash=[5, 4], color="#C0392B", strokeWidth=1.5).encode(tooltip=label),
        base.mark_text(align="left", dx=4, dy=-6, color="#C0392B", fontSize=11).encode(
            text="label:N", x=alt.value(0), tooltip=label
        ),
    ]


def _marks(groups: Sequence[Group], marks: Sequence[Mark]) -> list[alt.Chart]:
    if not marks:
        return []
    rows = [(m.step, m.value, m.group, m.run, m.alarm, m.message) for m in marks]
    data = _data(("step", "value", "group", "run", "alarm", "message"), ("step", "value"), rows)
    return [
        alt.Chart(data)
        .mark_point(shape="triangle-down", size=130, filled=True, stroke="#C0392B", strokeWidth=2, opacity=1)
        .encode(
            x="step:Q",
            y="value:Q",
            color=_colour(groups),
            tooltip=["alarm:N", "run:N", "step:Q", "message:N"],
        )
    ]


def _data(columns: Sequence[str], numbers: Sequence[str], rows: Sequence[Sequence[Any]]) -> alt.InlineData:
    content = table(columns, numbers, rows)
    return alt.InlineData(values=content["values"], format=alt.CsvDataFormat(**content["format"]))

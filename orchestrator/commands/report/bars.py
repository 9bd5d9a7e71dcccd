"""Draw stacked bars over steps: the parts of a whole, one chart for every group of runs."""

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from orchestrator.commands.report.charts import SUCCEEDED, Bars
from orchestrator.commands.report.data import Report
from orchestrator.commands.report.figure import Figure, step_ticks, table, with_data
from orchestrator.commands.report.palette import PASSED_KIND, kind_colours
from orchestrator.commands.report.stages import Part, binned_parts, highest_bar


def bar_figures(report: Report, bars: Bars) -> list[Figure]:
    """Return one figure for every group of runs, with the same colours and the same vertical axis."""
    parts_by_group = [
        binned_parts(
            [(r["step"], parts) for run in group.runs for r in run.view.metrics if (parts := bars.parts(r))],
            bars.most_bars,
        )
        for group in report.groups
    ]
    names = {name for parts in parts_by_group for _, _, name, value in parts if value > 0}
    colours = kind_colours(names) if bars.colours is None else {n: c for n, c in bars.colours.items() if n in names}
    y_max = 1.0 if bars.unit.startswith("share") else max(map(highest_bar, parts_by_group), default=0.0)
    return [
        Figure(
            name=f"{bars.name}-{number}",
            title=f"{bars.title}: {group.title}",
            better=bars.better if bars.colours is not None or PASSED_KIND in names else SUCCEEDED,
            caption=_caption(bars, len(group.runs), parts),
            spec=_spec(parts, colours, bars.unit, y_max),
            key=tuple(colours.items()),
        )
        for number, (group, parts) in enumerate(zip(report.groups, parts_by_group, strict=True), 1)
    ]


def _spec(parts: Sequence[Part], colours: Mapping[str, str], unit: str, y_max: float) -> dict[str, Any] | None:
    """Return a Vega-Lite spec, or None if no part is above 0. `colours`: from the bottom of a bar up."""
    order = list(colours)
    rows = [
        (first - 0.5, last + 0.5, f"{first}" if first == last else f"{first} to {last}", name, order.index(name), value)
        for first, last, name, value in parts
        if value > 0
    ]
    if not rows:
        return None
    ticks = step_ticks([step for first, last, *_ in parts for step in (first, last)])
    scale = alt.Scale(domain=order, range=list(colours.values()))
    chart = (
        alt.Chart()
        .mark_bar(binSpacing=0.5)
        .encode(
            x=alt.X(
                "from:Q",
                bin="binned",
                title="step",
                axis=alt.Axis(values=ticks, labelOverlap=True, format="d", grid=False),
            ),
            x2="to:Q",
            y=alt.Y("value:Q", stack="zero", title=unit, scale=alt.Scale(domain=[0, y_max], nice=y_max != 1)),
            color=alt.Color("part:N", scale=scale, title=None),
            order=alt.Order("order:Q"),
            tooltip=[
                alt.Tooltip("steps:N", title="step"),
                alt.Tooltip("part:N", title="part"),
                alt.Tooltip("value:Q", title=unit, format=".4~g"),
            ],
        )
    )
    columns, numbers = ("from", "to", "steps", "part", "order", "value"), ("from", "to", "order", "value")
    return with_data(chart, table(columns, numbers, rows))


def _caption(bars: Bars, num_seeds: int, parts: Sequence[Part]) -> str:
    """Return the caption of the bars and what one bar is the mean of."""
    if not parts:
        return f"Not recorded: {bars.metrics}."
    num_steps = max(last - first + 1 for first, last, _, _ in parts)
    means = [f"{count} {name}" for count, name in ((num_steps, "steps"), (num_seeds, "seeds")) if count > 1]
    bar = f"A bar is the mean of {' and '.join(means)}." if means else "A bar is a step."
    return f"{bars.caption} {bar}".strip()

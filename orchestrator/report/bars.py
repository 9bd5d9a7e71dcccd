"""Stacked bars over steps: what a whole is made of."""

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from orchestrator.report.figure import HEIGHT_PX, table
from orchestrator.report.stages import Part

Spec = dict[str, Any]

MOST_BARS = 40


def stacked_spec(
    parts: Sequence[Part], colours: Mapping[str, str], *, y_title: str, unit: str, y_max: float
) -> Spec | None:
    """A Vega-Lite spec, or None without parts. `colours` from the bottom of a bar up; `y_max` is always shown."""
    if not parts:
        return None
    order = {name: place for place, name in enumerate(colours)}
    rows = [
        (first - 0.5, last + 0.5, f"{first}" if first == last else f"{first} to {last}", name, order[name], value)
        for first, last, name, value in parts
        if value > 0
    ]
    if not rows:
        return None
    scale = alt.Scale(domain=list(colours), range=list(colours.values()))
    chart = (
        alt.Chart()
        .mark_bar(binSpacing=0.5)
        .encode(
            x=alt.X("from:Q", bin="binned", title="step", axis=alt.Axis(tickMinStep=1, format="d", grid=False)),
            x2="to:Q",
            y=alt.Y("value:Q", stack="zero", title=y_title, scale=alt.Scale(domain=[0, y_max], nice=y_max != 1)),
            color=alt.Color("part:N", scale=scale, legend=alt.Legend(title=None, orient="bottom", columns=4)),
            order=alt.Order("place:Q"),
            tooltip=[
                alt.Tooltip("steps:N", title="step"),
                alt.Tooltip("part:N", title="part"),
                alt.Tooltip("value:Q", title=unit, format=".4~g"),
            ],
        )
        .properties(width="container", height=HEIGHT_PX)
    )
    spec: dict[str, Any] = chart.to_dict()
    del spec["config"], spec["$schema"]
    columns, numbers = ("from", "to", "steps", "part", "place", "value"), ("from", "to", "place", "value")
    return spec | {"data": table(columns, numbers, rows)}


def bars_caption(num_seeds: int, parts: Sequence[Part], words: str) -> str:
    """`words`, and what one bar is the mean of."""
    width = max(last - first + 1 for first, last, _, _ in parts)
    means = [f"{width} steps"] if width > 1 else []
    means += [f"{num_seeds} seeds"] if num_seeds > 1 else []
    bar = f"A bar is the mean of {' and '.join(means)}." if means else "A bar is a step."
    return f"{words} {bar}".strip()

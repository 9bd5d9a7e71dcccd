"""A figure of the report: words and one chart. The inline data of charts."""

import csv
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

PLOT_WIDTH_PX = 640
HEIGHT_PX = 220


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One chart with its title and caption; all texts are plain, not HTML.

    `spec`: a Vega-Lite spec with inline data, or None if there is nothing to draw, which `caption` then explains.
    `name`: unique in the report, used as element id and file name. `key`: (label, colour) of what the colours mean,
    where they do not mean runs.
    """

    name: str
    title: str
    better: str = ""
    caption: str = ""
    spec: dict[str, Any] | None = None
    key: tuple[tuple[str, str], ...] = ()


def step_ticks(steps: Iterable[float]) -> list[int]:
    """Return whole numbers for the marks of an axis over these steps, at most 11, 1, 2 or 5 times a power of 10 apart.

    Vega's own marks are fractions where there are few steps.
    """
    found = sorted(steps)
    if not found:
        return []
    first, last = math.ceil(found[0]), math.floor(found[-1])
    distances = (digit * 10**exponent for exponent in count() for digit in (1, 2, 5))
    apart = next(distance for distance in distances if last - first <= 10 * distance)
    return [step for step in range(first, last + 1) if step % apart == 0] or [first]


def table(columns: Sequence[str], numbers: Sequence[str], rows: Iterable[Sequence[Any]]) -> dict[str, Any]:
    """Return inline data of a spec as CSV, the smallest form that Vega reads. None becomes an empty field."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([[f"{value:.5g}" if isinstance(value, float) else value for value in row] for row in rows])
    return {"values": text.getvalue(), "format": {"type": "csv", "parse": dict.fromkeys(numbers, "number")}}


def with_data(chart: Any, data: dict[str, Any]) -> dict[str, Any]:
    """Return the spec of an Altair chart with `data`, without Altair's own schema and configuration."""
    spec: dict[str, Any] = chart.properties(width="container", height=HEIGHT_PX).to_dict()
    del spec["config"], spec["$schema"]
    return spec | {"data": data}

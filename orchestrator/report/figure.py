"""A figure: words and one chart."""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

PLOT_WIDTH_PX = 640
HEIGHT_PX = 220


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """`spec` is a Vega-Lite spec whose data is inline; None if nothing was recorded, which `caption` then says.

    `name` is unique in the report: element id and file name. `key`: (label, colour) of what the chart's colours mean,
    where they do not mean runs. All texts are plain, not HTML.
    """

    name: str
    title: str
    better: str = ""
    caption: str = ""
    spec: dict[str, Any] | None = None
    key: tuple[tuple[str, str], ...] = ()


def table(columns: Sequence[str], numbers: Sequence[str], rows: Iterable[Sequence[Any]]) -> dict[str, Any]:
    """Inline data of a spec: CSV, the smallest form that Vega reads. None becomes an empty field, a missing number."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([[_short(value) for value in row] for row in rows])
    return {"values": text.getvalue(), "format": {"type": "csv", "parse": dict.fromkeys(numbers, "number")}}


def _short(value: Any) -> Any:
    """Floats with five digits."""
    return format(value, ".5g") if isinstance(value, float) else value

"""Write the charts of a report as PNG and SVG files."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from orchestrator.commands.report.figure import PLOT_WIDTH_PX, Figure

_SCALE = 2.0
_CONFIG = {
    "background": "white",
    "view": {"stroke": None},
    "axis": {"gridColor": "#e3e5e8", "labelOverlap": True},
    "legend": {"orient": "bottom", "columns": 4, "labelLimit": 400},
}


def write_plots(figures: Iterable[Figure], folder: Path) -> int:
    """Write NAME.png and NAME.svg of every chart into `folder`; returns the number of charts."""
    import vl_convert

    drawn = {figure.name: _for_a_file(figure) for figure in figures if figure.spec is not None}
    folder.mkdir(parents=True, exist_ok=True)
    for name, spec in drawn.items():
        (folder / f"{name}.svg").write_text(vl_convert.vegalite_to_svg(spec), encoding="utf-8")
        (folder / f"{name}.png").write_bytes(vl_convert.vegalite_to_png(spec, scale=_SCALE))
    return len(drawn)


def _for_a_file(figure: Figure) -> dict[str, Any]:
    """Return the spec with a title, a fixed width and a legend, which the page shows in HTML."""
    title = {"text": figure.title, "subtitle": figure.better, "anchor": "start"}
    return (figure.spec or {}) | {"width": PLOT_WIDTH_PX, "title": title, "config": _CONFIG}

"""The charts as files."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from orchestrator.report.figure import PLOT_WIDTH_PX, Figure

_SCALE = 2.0
_CONFIG = {"background": "white", "view": {"stroke": None}, "axis": {"gridColor": "#e3e5e8", "labelOverlap": True}}


def write_plots(figures: Iterable[Figure], folder: Path) -> int:
    """NAME.png and NAME.svg of every chart into `folder`; returns how many charts."""
    import vl_convert

    drawn = [figure for figure in figures if figure.spec is not None]
    folder.mkdir(parents=True, exist_ok=True)
    for figure in drawn:
        spec = _for_a_file(figure)
        (folder / f"{figure.name}.svg").write_text(vl_convert.vegalite_to_svg(spec), encoding="utf-8")
        (folder / f"{figure.name}.png").write_bytes(vl_convert.vegalite_to_png(spec, scale=_SCALE))
    return len(drawn)


def _for_a_file(figure: Figure) -> dict[str, Any]:
    """With a title and a fixed width; its legend is part of the picture."""
    assert figure.spec is not None
    title = {"text": figure.title, "subtitle": figure.better, "anchor": "start"}
    return figure.spec | {"width": PLOT_WIDTH_PX, "title": title, "config": _CONFIG}

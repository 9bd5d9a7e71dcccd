"""Small pieces of HTML. Every text that comes in is escaped."""

from collections.abc import Iterable, Sequence
from html import escape

from orchestrator.report.figure import Figure


class Markup(str):
    """Text that is HTML already."""


def text(value: object) -> Markup:
    """Escaped, for an element or a quoted attribute."""
    return value if isinstance(value, Markup) else Markup(escape(str(value), quote=True))


def table_html(head: Sequence[object], rows: Iterable[Sequence[object]], label: str) -> Markup:
    """A table with a head row; the first cell of a row is its head. It scrolls sideways by keyboard, too."""
    cells = "".join(f'<th scope="col">{text(cell)}</th>' for cell in head)
    body = "".join(
        f'<tr><th scope="row">{text(row[0])}</th>' + "".join(f"<td>{text(cell)}</td>" for cell in row[1:]) + "</tr>"
        for row in rows
    )
    return Markup(
        f'<div class="scroll" role="region" aria-label="{text(label)}" tabindex="0">'
        f"<table><thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def swatch(label: object, colour: str, dash: tuple[int, int] = (1, 0)) -> Markup:
    """An entry of a key: a colour and what it means. A dash pattern makes it a line."""
    style = f"background:{colour}"
    if dash != (1, 0):
        width = sum(dash)
        style = f"background:repeating-linear-gradient(90deg,{colour} 0 {dash[0]}px,transparent {dash[0]}px {width}px)"
    return Markup(f'<li><span class="swatch" style="{text(style)}"></span>{text(label)}</li>')


def figure_html(figure: Figure) -> Markup:
    """Title, key, the place where the chart is drawn, caption; the chart's values as a table when asked for."""
    better = f' <span class="better">{text(figure.better)}</span>' if figure.better else ""
    key = "".join(swatch(label, colour) for label, colour in figure.key) if figure.spec is not None else ""
    chart = f'<p class="missing">{text(figure.caption)}</p>'
    below = ""
    if figure.spec is not None:
        described = f"{figure.title}. {figure.better}. The values are in the table below."
        chart = f'<div class="chart" id="chart-{text(figure.name)}" role="img" aria-label="{text(described)}"></div>'
        caption = f"<p>{text(figure.caption)}</p>" if figure.caption else ""
        below = (
            f"<figcaption>{caption}<details class='values' data-chart='{text(figure.name)}'><summary>Values</summary>"
            "</details></figcaption>"
        )
    return Markup(
        f'<figure id="{text(figure.name)}"><h3>{text(figure.title)}{better}</h3>'
        + (f'<ul class="key">{key}</ul>' if key else "")
        + chart
        + below
        + "</figure>"
    )


def figures_html(figures: Iterable[Figure]) -> Markup:
    """Side by side where there is room."""
    return Markup('<div class="figures">' + "".join(figure_html(figure) for figure in figures) + "</div>")

"""From run directories to the report's files."""

from collections.abc import Sequence
from pathlib import Path

from orchestrator.report.chapters import Chapter, chapters
from orchestrator.report.credit import credit_section
from orchestrator.report.data import Report, make_report
from orchestrator.report.figure import Figure
from orchestrator.report.health_figures import health_figures
from orchestrator.report.health_panel import health_section
from orchestrator.report.markup import Markup, figures_html, text
from orchestrator.report.overview import overview, run_key
from orchestrator.report.page import page_html
from orchestrator.report.plots import write_plots
from orchestrator.report.section import Section
from orchestrator.run_view import RunView
from sdpo.errors import ConfigError
from sdpo.files import write_atomically
from sdpo.storage import is_uri

PAGE_BYTES = 4_000_000
"""Size of a page that is full: recorded attempts take what charts and library leave."""
LEAST_CREDIT_BYTES = 500_000
"""Room that recorded attempts have in any case."""


def write_report(places: Sequence[Path | str], out: Path | None = None, plots: Path | None = None) -> tuple[Path, int]:
    """Write the page, and the charts as files if `plots` is given; returns the page's path and the number of charts.

    `places`: run directories, paths or URIs. Without `out`: report.html in the run directory or, of several,
    report-compare.html beside the first; beside means in the current folder where the first is a URI. Raises
    `ConfigError` for a place that is no run directory and for a path that cannot be written to.
    """
    views = [RunView(place) for place in {_key(place): place for place in places}.values()]
    report = make_report(views)
    of_health, others = health_figures(report), chapters(report)
    figures = [figure for chapter in others for figure in chapter.figures] + of_health
    sections = [overview(report), *map(_section, others), health_section(report, of_health)]
    room = PAGE_BYTES - len(_page(report, sections, figures).encode())
    sections.append(credit_section([run.view for run in report.runs], max(LEAST_CREDIT_BYTES, room)))
    page = _page(report, sections, figures)
    file = out or _default_file(views)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, page)
        num_charts = write_plots(figures, plots) if plots is not None else 0
    except OSError as error:
        raise ConfigError(
            f"{error.filename or file}: cannot be written: {error.strerror}; allowed: another --out or --plots"
        ) from None
    return file, num_charts


def _page(report: Report, sections: Sequence[Section], figures: Sequence[Figure]) -> str:
    names = ", ".join(group.title for group in report.groups)
    source = ", ".join(run.view.place for run in report.runs)
    specs = {figure.name: figure.spec for figure in figures if figure.spec is not None}
    return page_html(f"Report: {names}", run_key(report), source, sections, specs)


def _section(chapter: Chapter) -> Section:
    words = f'<p class="text">{text(chapter.text)}</p>' if chapter.text else ""
    return Section(anchor=chapter.anchor, title=chapter.title, html=Markup(words + figures_html(chapter.figures)))


def _key(place: Path | str) -> str:
    """Equal for two names of one directory."""
    return str(place) if is_uri(place) else str(Path(place).resolve())


def _default_file(views: Sequence[RunView]) -> Path:
    first = views[0]
    if is_uri(first.place):
        return Path(f"report-{first.name}.html" if len(views) == 1 else "report-compare.html")
    return first.path / "report.html" if len(views) == 1 else first.path.resolve().parent / "report-compare.html"

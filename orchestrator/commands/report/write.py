"""Write the report of run directories: the page and, when asked for, every chart as a file."""

from collections.abc import Sequence
from pathlib import Path

from orchestrator.commands.report.bars import bar_figures
from orchestrator.commands.report.charts import CHAPTERS, CHARTS, Bars, Chapter
from orchestrator.commands.report.credit import credit_section
from orchestrator.commands.report.curves import curve_figures
from orchestrator.commands.report.data import Report, make_report
from orchestrator.commands.report.figure import Figure
from orchestrator.commands.report.health_panel import health_section
from orchestrator.commands.report.overview import overview_section
from orchestrator.commands.report.page import Section, page_html, render
from orchestrator.commands.report.plots import write_plots
from orchestrator.run_dir.remote_dir import origin_of
from orchestrator.run_dir.run_view import RunView
from sdpo.errors import ConfigError
from sdpo.files import write_atomically
from sdpo.run_layout import REPORT
from sdpo.storage import resolved

PAGE_BYTES = 4_000_000
"""Size of a full page: recorded attempts take what charts and library leave."""
MIN_CREDIT_BYTES = 500_000
"""Budget of recorded attempts on a page that the charts fill."""


def write_report(
    run_dirs: Sequence[Path | str], out: Path | None = None, plots: Path | None = None
) -> tuple[Path, int]:
    """Write the page, and the charts as files if `plots` is given; returns the page's path and the number of charts.

    `run_dirs`: paths or URIs. Without `out`, the page is report.html in the run directory or, of
    several, report-compare.html beside the first; of a URI it is in the current folder. Raises `ConfigError` for a path
    that is no run directory and for one that cannot be written to.
    """
    views = [RunView(run_dir) for run_dir in {resolved(run_dir): run_dir for run_dir in run_dirs}.values()]
    report = make_report(views)
    figures = {chapter.anchor: figures_of(report, chapter) for chapter in CHAPTERS}
    sections = [overview_section(report), *(_section(report, chapter, figures[chapter.anchor]) for chapter in CHAPTERS)]
    every = [figure for charts in figures.values() for figure in charts]
    specs = {figure.name: figure.spec for figure in every if figure.spec is not None}
    left_bytes = PAGE_BYTES - len(page_html(report, sections, specs).encode())
    sections.append(credit_section(report.runs, max(MIN_CREDIT_BYTES, left_bytes)))
    file = out or _default_file(views)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, page_html(report, sections, specs))
        num_charts = write_plots(every, plots) if plots is not None else 0
    except OSError as error:
        raise ConfigError(
            f"{error.filename or file}: cannot be written: {error.strerror}; allowed: another --out or --plots"
        ) from None
    return file, num_charts


def figures_of(report: Report, chapter: Chapter) -> list[Figure]:
    """Return the figures of a chapter, or one that says that nothing was recorded."""
    figures = [
        figure
        for chart in CHARTS
        if chart.chapter == chapter.anchor
        for figure in (bar_figures(report, chart) if isinstance(chart, Bars) else curve_figures(report, chart))
        if figure.spec is not None or not chapter.only_recorded
    ]
    empty = Figure(name=chapter.anchor, title=chapter.title, caption=f"Not recorded: {chapter.only_recorded}.")
    return figures or [empty]


def _section(report: Report, chapter: Chapter, figures: Sequence[Figure]) -> Section:
    if chapter.anchor == "health":
        return health_section(report, figures)
    html = render("chapter.html", text=chapter.text, charts=figures)
    return Section(anchor=chapter.anchor, title=chapter.title, html=html)


def _default_file(views: Sequence[RunView]) -> Path:
    first = views[0]
    if origin_of(first.path):
        return Path(f"report-{first.name}.html" if len(views) == 1 else "report-compare.html")
    return first.path / REPORT if len(views) == 1 else first.path.resolve().parent / "report-compare.html"

"""The alarms as a table: what each watches, its threshold, and what happened in every run."""

from collections.abc import Mapping

from orchestrator.report.data import Report, Run
from orchestrator.report.figure import Figure
from orchestrator.report.markup import Markup, figures_html, table_html, text
from orchestrator.report.section import Section
from sdpo.health import RULES

_KEYS: Mapping[str, tuple[str, ...]] = {
    "entropy_collapse": ("entropy_share",),
    "length_collapse": ("length_share",),
    "pass_rate_collapse": ("pass_rate_share",),
    "heldout_collapse": ("pass_rate_share",),
    "no_signal": ("min_signal_share",),
    "mismatch": ("max_engine_gap_mean", "max_engine_gap_p99"),
    "not_finite": ("max_steps_not_finite",),
}
"""Thresholds of an alarm, keys of `health`."""


def health_section(report: Report, figures: list[Figure]) -> Section:
    """Panel, the words of every alarm, then the charts."""
    return Section(anchor="health", title="Health", html=_panel(report) + _messages(report) + figures_html(figures))


def _panel(report: Report) -> Markup:
    rows = [[_head(report, name), *(_cell(run, name) for run in report.runs)] for name in RULES]
    return table_html(["alarm", *(run.label for run in report.runs)], rows, "Alarms of the runs")


def _head(report: Report, name: str) -> Markup:
    """Name, what it watches, and its thresholds where all runs have the same."""
    told = {_thresholds(run, name) for run in report.runs}
    threshold = f"Threshold: {text(told.pop())}." if len(told) == 1 else ""
    return Markup(f'{text(_words(name))} <span class="note">{_what(name)} {threshold}</span>')


def _thresholds(run: Run, name: str) -> str:
    limits = [(key, getattr(run.view.config.health, key)) for key in _KEYS[name]]
    return ", ".join(f"health.{key}={'none' if value is None else f'{value:g}'}" for key, value in limits)


def _cell(run: Run, name: str) -> Markup:
    """What happened; the tooltip says the run's own threshold."""
    began = [str(alarm["step"]) for alarm in run.view.alarms if alarm["name"] == name]
    if all(getattr(run.view.config.health, key) is None for key in _KEYS[name]):
        words = "off"
    elif began:
        now = "; sounding at the last step" if _sounds(run, name) else ""
        words = f'<span class="alarm">⚠ began at step {text(", ".join(began))}{now}</span>'
    elif not any(f"health/{name}" in record for record in run.view.metrics):
        words = "not recorded"
    else:
        words = '<span class="well">✓ silent</span>'
    return Markup(f'<span title="{text(_thresholds(run, name))}">{words}</span>')


def _sounds(run: Run, name: str) -> bool:
    return bool(run.view.metrics) and bool(run.view.metrics[-1].get(f"health/{name}"))


def _messages(report: Report) -> str:
    entries = [
        f"<li><strong>{text(_words(alarm['name']))}</strong>, {text(run.label)}, step {text(alarm['step'])}: "
        f"{text(alarm['message'])}</li>"
        for run in report.runs
        for alarm in run.view.alarms
    ]
    if not entries:
        return "<p>No alarm began.</p>"
    summary = f"<summary>What the alarms said ({len(entries)})</summary>"
    return f'<details class="messages">{summary}<ul>{"".join(entries)}</ul></details>'


def _words(name: str) -> str:
    return str(name).replace("_", " ")


def _what(name: str) -> str:
    """First line of the rule's docstring."""
    return text((RULES[name].__doc__ or "").strip().splitlines()[0])

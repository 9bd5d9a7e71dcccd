"""The alarms as a table: what each one watches, its threshold, and what happened in every run."""

from collections.abc import Sequence

from orchestrator.commands.report.data import Report, Run
from orchestrator.commands.report.figure import Figure
from orchestrator.commands.report.page import Section, render
from sdpo.health import RULES, Rule


def health_section(report: Report, figures: Sequence[Figure]) -> Section:
    """Return the table of the alarms, the message of every alarm, then the charts."""
    rows = [(rule, [_cell(run, rule) for run in report.runs]) for rule in RULES.values()]
    html = render("health.html", runs=report.runs, rows=rows, charts=figures)
    return Section(anchor="health", title="Health", html=html)


def _cell(run: Run, rule: Rule) -> dict[str, str]:
    """Return what happened in a run in words, the CSS class of these words, and the run's own threshold."""
    limits = {key: getattr(run.view.config.health, key) for key in rule.thresholds.values()}
    begun = [str(alarm["step"]) for alarm in run.view.alarms if alarm["name"] == rule.name]
    metric, style = f"health/{rule.name}", ""
    if all(value is None for value in limits.values()):
        words = "switched off"
    elif begun:
        is_on = bool(run.view.metrics) and bool(run.view.metrics[-1].get(metric))
        words, style = f"⚠ began at step {', '.join(begun)}{'; on at the last step' if is_on else ''}", "alarm"
    elif not any(metric in record for record in run.view.metrics):
        words = "not recorded"
    else:
        words, style = "✓ never raised", "well"
    named = [f"health.{key}={'none' if value is None else f'{value:g}'}" for key, value in limits.items()]
    return {"words": words, "style": style, "threshold": ", ".join(named)}

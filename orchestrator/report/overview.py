"""The head of the page: what became of every run, and with which settings."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.report.data import Group, Report, Run, differing_settings
from orchestrator.report.intervals import mean_interval
from orchestrator.report.markup import Markup, swatch, table_html, text
from orchestrator.report.section import Section
from sdpo.config.algorithm import SdpoObjective
from sdpo.show import show

UNKNOWN = "not recorded"


def overview(report: Report) -> Section:
    """Results by group, then the facts of every run, then the settings that differ between groups."""
    tiles = "".join(_tile(group) for group in report.groups)
    html = f'<div class="tiles">{tiles}</div><h3>Runs</h3>' + _facts(report)
    if len(report.groups) > 1:
        html += "<h3>Settings that differ</h3>" + _differences(report)
    if report.bin_steps > 1:
        html += f'<p class="note">Every point of a curve is the mean of {report.bin_steps} steps.</p>'
    return Section(anchor="overview", title="Overview", html=html)


def run_key(report: Report) -> Markup:
    """What the colours of the curves mean, all over the page."""
    entries = "".join(swatch(group.title, group.colour, group.dash) for group in report.groups)
    seeds = any(len(group.runs) > 1 for group in report.groups)
    words = '<p class="note">Thick: mean over seeds, with its 95 % t interval. Thin: single runs.</p>' if seeds else ""
    return Markup(f'<ul class="key" aria-label="Colours of the runs">{entries}</ul>{words}')


def heldout(run: Run, *, last: bool) -> dict[str, Any] | None:
    """The first or the last record with held-out pass@1; None if there is none."""
    records = [r for r in run.view.metrics if r.get("heldout/pass@1") is not None]
    return records[-1 if last else 0] if records else None


def _tile(group: Group) -> str:
    afters = [found["heldout/pass@1"] for run in group.runs if (found := heldout(run, last=True)) is not None]
    befores = [found["heldout/pass@1"] for run in group.runs if (found := heldout(run, last=False)) is not None]
    if not afters:
        result, words = "–", "held-out pass@1 was not recorded"
    else:
        result = f"{statistics.fmean(befores):.3f} → {statistics.fmean(afters):.3f}"
        words = "held-out pass@1, first → last measurement"
    if len(afters) > 1:
        _, low, high = mean_interval(afters)
        words += f"; mean of {len(afters)} seeds, 95 % interval of the last {max(0.0, low):.3f} to {min(1.0, high):.3f}"
    elif afters:
        [record] = [found for run in group.runs if (found := heldout(run, last=True)) is not None]
        words += f"; 95 % interval of the last {_interval(record)}"
        words += f"; of 1 of {len(group.runs)} seeds" if len(group.runs) > 1 else ""
    alarms = sum(len(run.view.alarms) for run in group.runs)
    health = (
        f'<a href="#health" class="alarm">⚠ {alarms} alarms</a>' if alarms else '<span class="well">no alarm</span>'
    )
    return (
        f'<div class="tile" style="border-left-color:{group.colour}"><h3>{text(group.title)}</h3>'
        f'<p class="result">{result}</p><p>{text(words)}</p><p>{health}</p></div>'
    )


def _facts(report: Report) -> Markup:
    table = [_facts_of(run) for run in report.runs]
    rows = [[name, *(facts[name] for facts in table)] for name in table[0]]
    return table_html(["", *(run.label for run in report.runs)], rows, "Facts of the runs")


def _facts_of(run: Run) -> dict[str, str]:
    config, records = run.view.config, run.view.metrics
    seconds = [r["time/step_s"] for r in records if r.get("time/step_s") is not None]
    before, after = heldout(run, last=False), heldout(run, last=True)
    return {
        "model": config.model.path,
        "objective": _objective(run),
        "teacher": _teacher(run),
        "steps done": f"{run.last_step} of {config.steps}" if records else f"none of {config.steps}",
        "learning rate": f"{config.learner.optimizer.learning_rate:g}",
        "batch": f"{config.batch.tasks} tasks, {config.batch.samples_per_task} attempts each",
        "seed": str(config.seed),
        "held-out pass@1, first": _pass_at_1(before),
        "held-out pass@1, last": _pass_at_1(after),
        "time in steps": _duration(sum(seconds)) if seconds else UNKNOWN,
        "started": str(run.view.facts.get("started", UNKNOWN)),
        "versions": _versions(run),
        "directory": run.view.place,
    }


def _objective(run: Run) -> str:
    objective = run.view.config.objective
    if not isinstance(objective, SdpoObjective):
        return objective.kind
    mixed = f", GRPO weight {objective.grpo_weight:g}" if objective.grpo_weight else ""
    estimator = "" if objective.estimator == "support" else f", {objective.estimator}"
    return f"{objective.kind}, {objective.divergence}{estimator}{mixed}"


def _teacher(run: Run) -> str:
    if not run.view.config.uses_teacher:
        return "none in hindsight"
    rule = run.view.config.teacher.regularisation
    rate = getattr(rule, "rate", None)
    return rule.kind if rate is None else f"{rule.kind}, rate {rate:g}"


def _versions(run: Run) -> str:
    versions: dict[str, str] = run.view.facts.get("versions", {})
    return ", ".join(f"{name} {number}" for name, number in versions.items()) or UNKNOWN


def _pass_at_1(record: dict[str, Any] | None) -> str:
    if record is None:
        return UNKNOWN
    return f"{record['heldout/pass@1']:.3f} ({_interval(record)}) at step {record['step']}"


def _interval(record: dict[str, Any]) -> str:
    low, high = record.get("heldout/pass@1_low"), record.get("heldout/pass@1_high")
    return "no interval" if low is None or high is None else f"{low:.3f} to {high:.3f}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def _differences(report: Report) -> str:
    """Settings that all groups have, then those that go with a choice of some of them."""
    found = differing_settings(report.groups)
    titles = [group.title for group in report.groups]
    shared = {key: values for key, values in found.items() if None not in values}
    html: str = _settings_table(titles, shared)
    if others := {key: values for key, values in found.items() if key not in shared}:
        summary = f"<summary>Settings that only some of them have ({len(others)})</summary>"
        html += f'<details class="messages">{summary}{_settings_table(titles, others)}</details>'
    return html


def _settings_table(titles: list[str], settings: Mapping[str, Sequence[Any]]) -> Markup:
    rows = [[key, *("–" if value is None else show(value) for value in values)] for key, values in settings.items()]
    return table_html(["setting", *titles], rows, "Settings that differ")

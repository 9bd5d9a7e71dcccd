"""Figures of whom the actors of a role wait for."""

from collections.abc import Mapping
from typing import Any

from orchestrator.report.bars import MOST_BARS, bars_caption, stacked_spec
from orchestrator.report.data import Group, Report
from orchestrator.report.figure import Figure
from orchestrator.report.palette import OTHER_COLOUR, PART_COLOURS
from orchestrator.report.stages import binned_parts
from sdpo.telemetry.labels import BUSY, ROLES, RUN_ACTOR, STAGES

COLOURS = {BUSY: "#0072B2"} | dict(zip(STAGES, PART_COLOURS, strict=True)) | {RUN_ACTOR: OTHER_COLOUR}
"""From the bottom of a bar up: busy, then what an idle actor waits for."""
WORDS = "Above busy: idle, by the first stage of the pipeline that was under way anywhere."


def state_shares(record: Mapping[str, Any], role: str) -> dict[str, float] | None:
    """Shares of the time of a role's actors in one step, busy first; None where nothing was recorded."""
    names = {BUSY: f"time/busy/{role}_s"} | {state: f"time/idle/{role}/{state}_s" for state in (*STAGES, RUN_ACTOR)}
    seconds = {state: float(record.get(name) or 0.0) for state, name in names.items()}
    whole = sum(seconds.values())
    return {state: part / whole for state, part in seconds.items()} if whole > 0 else None


def idle_figures(report: Report) -> list[Figure]:
    """One of every role of every group of runs."""
    figures = [
        figure
        for place, group in enumerate(report.groups, 1)
        for role in ROLES
        if (figure := _figure(group, place, role)) is not None
    ]
    return figures or [Figure(name="idle", title="Busy and idle", caption="Not recorded: time/busy/*, time/idle/*.")]


def _figure(group: Group, place: int, role: str) -> Figure | None:
    tables = [(r["step"], s) for run in group.runs for r in run.view.metrics if (s := state_shares(r, role))]
    if not tables:
        return None
    parts = binned_parts(tables, MOST_BARS)
    shown = {state: colour for state, colour in COLOURS.items() if any(s[state] > 0 for _, s in tables)}
    return Figure(
        name=f"idle-{role}-{place}",
        title=f"Busy and idle, {role}: {group.title}",
        better="more busy is better",
        caption=bars_caption(len(group.runs), parts, WORDS),
        spec=stacked_spec(
            [part for part in parts if part[2] in shown], shown, y_title="share of time", unit="share", y_max=1
        ),
        key=tuple(shown.items()),
    )

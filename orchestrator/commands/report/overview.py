"""The head of the page: the results of every group, the facts of every run, the settings that differ."""

import statistics
from typing import Any

from orchestrator.commands.report.data import Group, Report, differing_settings
from orchestrator.commands.report.intervals import mean_interval
from orchestrator.commands.report.page import Section, render
from orchestrator.run_dir.wording import describe_teacher, heldout_reward, interval, pass_at_1, tells_more, versions
from sdpo.show import show, show_duration


def overview_section(report: Report) -> Section:
    """Return results by group, then facts by run, then the settings that differ between groups."""
    differing = differing_settings(group.runs[0].view for group in report.groups)
    rows = {key: [key, *("–" if v is None else show(v) for v in values)] for key, values in differing.items()}
    html = render(
        "overview.html",
        tiles=[_tile(group) for group in report.groups],
        runs=report.runs,
        describe_teacher=describe_teacher,
        pass_at_1=pass_at_1,
        heldout_reward=heldout_reward,
        rewards_differ=any(tells_more(run.heldout) for run in report.runs),
        versions=versions,
        show_duration=show_duration,
        titles=[group.title for group in report.groups],
        shared=[row for key, row in rows.items() if None not in differing[key]],
        others=[row for key, row in rows.items() if None in differing[key]],
        bin_steps=report.bin_steps,
    )
    return Section(anchor="overview", title="Overview", html=html)


def _tile(group: Group) -> dict[str, Any]:
    """Return held-out pass@1 of a group before and after, the interval of the latter, and the number of alarms.

    `rewards`: the mean held-out rewards before and after, where they differ from pass@1, else None.
    """
    measured = [records for run in group.runs if (records := run.heldout)]
    befores, afters = ([records[i]["heldout/pass@1"] for records in measured] for i in (0, -1))
    band = interval(measured[0][-1]) if measured else ""
    if len(afters) > 1:
        _, low, high = mean_interval(afters)
        band = f"{max(0.0, low):.3f} to {min(1.0, high):.3f}"
    rewards = None
    if any(tells_more(records) for records in measured):
        of_ends = (
            [r[i]["heldout/reward"] for r in measured if r[i].get("heldout/reward") is not None] for i in (0, -1)
        )
        rewards = [statistics.fmean(found) if found else None for found in of_ends]
    alarms = sum(len(run.view.alarms) for run in group.runs)
    return {
        "group": group,
        "befores": befores,
        "afters": afters,
        "interval": band,
        "rewards": rewards,
        "alarms": alarms,
    }

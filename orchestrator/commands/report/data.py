"""The runs of a report: their names, their groups over seeds, the series of their metrics."""

import json
import os
import re
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.commands.report.intervals import mean_interval
from orchestrator.commands.report.palette import run_style
from orchestrator.run_dir.run_view import RunView
from sdpo.config.keys import flat

Points = list[tuple[float, float | None]]
"""(step, value); None where a value was recorded that was not finite."""

MOST_POINTS = 500
"""Largest number of points of a line. Longer runs are drawn as means over equally many steps."""


@dataclass(frozen=True, slots=True)
class Run:
    """One run directory. `label` is unique in the report."""

    view: RunView
    label: str

    def points(self, metric: str) -> Points:
        """Return every recorded value of a metric, one a step."""
        return [(r["step"], r[metric]) for r in self.view.metrics if metric in r]

    def finite(self, metric: str) -> list[tuple[float, float]]:
        """Return every finite value of a metric, at most one a step."""
        return [(step, value) for step, value in self.points(metric) if value is not None]

    @property
    def heldout(self) -> list[dict[str, Any]]:
        """The records with held-out pass@1, in order."""
        return [record for record in self.view.metrics if record.get("heldout/pass@1") is not None]

    @property
    def last_step(self) -> int:
        """The newest recorded step; 0 if there is none."""
        return int(self.view.metrics[-1]["step"]) if self.view.metrics else 0


@dataclass(frozen=True, slots=True)
class Group:
    """Runs whose configs differ only in `seed`, `name` and `dir`. `label` is unique in the report."""

    label: str
    colour: str
    dash: tuple[int, int]
    runs: tuple[Run, ...]

    @property
    def title(self) -> str:
        """The label and, of several runs, the number of seeds."""
        return f"{self.label} ({len(self.runs)} seeds)" if len(self.runs) > 1 else self.label


@dataclass(frozen=True, slots=True)
class Report:
    """The groups of runs that are shown. `bin_steps`: the number of steps that a point of a line is the mean of."""

    groups: tuple[Group, ...]
    bin_steps: int

    @property
    def runs(self) -> list[Run]:
        """The runs of all groups, group by group."""
        return [run for group in self.groups for run in group.runs]

    def metrics(self) -> list[str]:
        """Return the names of all recorded metrics, sorted."""
        return sorted({key for run in self.runs for record in run.view.metrics for key in record})

    def missing(self, metric: str) -> list[Run]:
        """Return the runs without a finite value of a metric; those that have not trained yet only if all lack it."""
        without = [run for run in self.runs if not run.finite(metric)]
        return without if len(without) == len(self.runs) else [run for run in without if run.last_step > 0]


def make_report(views: Sequence[RunView]) -> Report:
    """Return the runs in groups, with unique names. Raises `ConfigError` for a config that cannot be read."""
    members: dict[str, list[RunView]] = {}
    for view in views:
        members.setdefault(json.dumps(_settings(view), sort_keys=True), []).append(view)
    run_labels = iter(_unique([(view.name, view.location) for grouped in members.values() for view in grouped]))
    runs = [[Run(view, next(run_labels)) for view in grouped] for grouped in members.values()]
    group_labels = _unique([(_common_name([run.label for run in grouped]), "") for grouped in runs])
    groups = tuple(
        Group(label, *run_style(index), tuple(grouped))
        for index, (label, grouped) in enumerate(zip(group_labels, runs, strict=True))
    )
    longest = max((run.last_step for grouped in runs for run in grouped), default=0)
    return Report(groups, -(-longest // MOST_POINTS) or 1)


def binned(points: Points, bin_steps: int) -> Points:
    """Return the means of the finite values of every `bin_steps` steps, at the middle of the bin; None without any.

    Step 0, before training, is a bin of its own.
    """
    if bin_steps == 1:
        return points
    bins: dict[int, list[float]] = {}
    for step, value in points:
        bins.setdefault(-(-int(step) // bin_steps), []).extend([] if value is None else [value])
    middle = (bin_steps - 1) / 2
    return [(i and i * bin_steps - middle, statistics.fmean(v) if v else None) for i, v in bins.items()]


def mean_over_runs(lines: Sequence[Points]) -> list[tuple[float, float, float, float]]:
    """Return (step, mean, low, high), 95 % t intervals over runs, at the steps where all runs have a finite value."""
    tables = [{step: value for step, value in line if value is not None} for line in lines]
    shared = sorted(set(tables[0]).intersection(*tables[1:]))
    return [(step, *mean_interval([table[step] for table in tables])) for step in shared]


def differing_settings(views: Iterable[RunView]) -> dict[str, list[Any]]:
    """Return the settings that runs differ in, by dotted key: the value in every run, None where it is absent.

    Names, directories and seeds are no settings.
    """
    tables = [dict(flat(_settings(view))) for view in views]
    keys = dict.fromkeys(key for table in tables for key in table)
    found = {key: [table.get(key) for table in tables] for key in keys}
    return {key: values for key, values in found.items() if any(value != values[0] for value in values)}


def _settings(view: RunView) -> dict[str, Any]:
    return view.config.model_dump(mode="json", exclude={"seed", "name", "dir"})


def _common_name(labels: Sequence[str]) -> str:
    """Return what the names of a group share without the number of the seed; the first name if they share nothing."""
    if len(labels) == 1:
        return labels[0]
    without_seeds = [re.sub(r"[-_.]?(seed|s)?[-_.]?\d+$", "", label) for label in labels]
    return os.path.commonprefix(without_seeds).rstrip("-_. (") or labels[0]  # noqa: RUF071, by characters


def _unique(named: Sequence[tuple[str, str]]) -> list[str]:
    """Return the names as they are where they are unique; else with their directory, else numbered."""
    names = [name for name, _ in named]
    seen: Counter[str] = Counter()
    labels = []
    for name, path in named:
        label = f"{name} ({path})" if path and names.count(name) > 1 else name
        seen[label] += 1
        labels.append(label if seen[label] == 1 else f"{label} [{seen[label]}]")
    return labels

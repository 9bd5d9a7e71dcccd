"""The runs of a report: their names, their groups over seeds, their series."""

import itertools
import json
import re
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.report.intervals import mean_interval
from orchestrator.report.palette import run_style
from orchestrator.run_view import RunView

Points = list[tuple[float, float | None]]
"""(step, value); None where a value was recorded that was not finite."""

MOST_POINTS = 500
"""Points of a line. Longer runs are drawn as means over equally many steps."""


@dataclass(frozen=True, slots=True)
class Run:
    """One run directory. `label` is unique in the report."""

    view: RunView
    label: str

    def points(self, metric: str) -> Points:
        """Every recorded value of a metric, one a step."""
        return [(r["step"], r[metric]) for r in self.view.metrics if metric in r]

    def has(self, metric: str) -> bool:
        """Whether there is a finite value of it."""
        return any(value is not None for _, value in self.points(metric))

    @property
    def last_step(self) -> int:
        return int(self.view.metrics[-1]["step"]) if self.view.metrics else 0


@dataclass(frozen=True, slots=True)
class Group:
    """Runs whose configs differ in `seed`, `name` and `dir` alone. `label` is unique in the report."""

    label: str
    colour: str
    dash: tuple[int, int]
    runs: tuple[Run, ...]

    @property
    def title(self) -> str:
        return f"{self.label} ({len(self.runs)} seeds)" if len(self.runs) > 1 else self.label


@dataclass(frozen=True, slots=True)
class Report:
    """What is shown. `bin_steps`: every point of a line is the mean of so many steps."""

    groups: tuple[Group, ...]
    bin_steps: int

    @property
    def runs(self) -> list[Run]:
        return [run for group in self.groups for run in group.runs]

    def metrics(self, prefix: str) -> list[str]:
        """Names of the recorded metrics that begin with `prefix`, sorted."""
        return sorted({key for run in self.runs for r in run.view.metrics for key in r if key.startswith(prefix)})

    def missing(self, metric: str) -> list[Run]:
        """Runs that have no finite value of a metric; those that have not trained yet only if all lack it."""
        without = [run for run in self.runs if not run.has(metric)]
        return without if len(without) == len(self.runs) else [run for run in without if run.last_step > 0]


def make_report(views: Sequence[RunView]) -> Report:
    """Group runs and name them. Raises `ConfigError` for a directory whose config cannot be read."""
    members: dict[str, list[RunView]] = {}
    for view in views:
        members.setdefault(_kind_of_run(view), []).append(view)
    run_labels = iter(_unique([(view.name, view.place) for grouped in members.values() for view in grouped]))
    runs = [[Run(view, next(run_labels)) for view in grouped] for grouped in members.values()]
    group_labels = _unique([(_common_name([run.label for run in grouped]), "") for grouped in runs])
    groups = tuple(
        Group(label, *run_style(place), tuple(grouped))
        for place, (label, grouped) in enumerate(zip(group_labels, runs, strict=True))
    )
    longest = max((run.last_step for grouped in runs for run in grouped), default=0)
    return Report(groups, -(-longest // MOST_POINTS) or 1)


def binned(points: Points, bin_steps: int) -> Points:
    """Means of the finite values of every `bin_steps` steps, at the middle of the bin; None where there was none.

    Step 0, before training, is a bin of its own.
    """
    if bin_steps == 1:
        return points
    bins: dict[int, list[float | None]] = {}
    for step, value in points:
        bins.setdefault(-(-int(step) // bin_steps), []).append(value)
    return [(_middle(index, bin_steps), mean_of_finite(values)) for index, values in bins.items()]


def mean_over_runs(lines: Sequence[Points]) -> list[tuple[float, float, float, float]]:
    """(step, mean, low, high) with 95 % t intervals over runs, at the steps where every run has a finite value."""
    tables = [{step: value for step, value in line if value is not None} for line in lines]
    shared = sorted(set(tables[0]).intersection(*tables[1:]))
    return [(step, *mean_interval([table[step] for table in tables])) for step in shared]


def differing_settings(groups: Iterable[Group]) -> dict[str, list[Any]]:
    """Settings that are not equal in all groups, by dotted key: the value in every group, None where it is absent."""
    tables = [dict(_flat(_settings(group.runs[0].view))) for group in groups]
    keys = dict.fromkeys(key for table in tables for key in table)
    found = {key: [table.get(key) for table in tables] for key in keys}
    return {key: values for key, values in found.items() if any(value != values[0] for value in values)}


def mean_of_finite(values: Iterable[float | None]) -> float | None:
    """None if there is none."""
    finite = [value for value in values if value is not None]
    return statistics.fmean(finite) if finite else None


def _kind_of_run(view: RunView) -> str:
    return json.dumps(_settings(view), sort_keys=True)


def _settings(view: RunView) -> dict[str, Any]:
    return view.config.model_dump(mode="json", exclude={"seed", "name", "dir"})


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _middle(index: int, bin_steps: int) -> float:
    """Of the steps (index - 1) * bin_steps + 1 to index * bin_steps."""
    return max(0.0, index * bin_steps - (bin_steps - 1) / 2) if index else 0.0


def _common_name(labels: Sequence[str]) -> str:
    """What the names of a group's runs share when the number of the seed is left out; the first name if nothing."""
    if len(labels) == 1:
        return labels[0]
    without_seeds = [re.sub(r"[-_.]?(seed|s)?[-_.]?\d+$", "", label) for label in labels]
    letters = itertools.takewhile(lambda at: len(set(at)) == 1, zip(*without_seeds, strict=False))
    return "".join(at[0] for at in letters).rstrip("-_. (") or labels[0]


def _unique(named: Sequence[tuple[str, str]]) -> list[str]:
    """Names as they are where they are unique; else with their directory, else numbered."""
    names = [name for name, _ in named]
    wide = [f"{name} ({path})" if path and names.count(name) > 1 else name for name, path in named]
    numbers: dict[str, Callable[[], int]] = {}
    labels = []
    for name in wide:
        count = numbers.setdefault(name, iter(range(1, len(wide) + 1)).__next__)()
        labels.append(name if count == 1 else f"{name} [{count}]")
    return labels

"""Choose the recorded attempts that `sdpo inspect` shows."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from orchestrator.run_dir.run_view import RunView
from sdpo.errors import ConfigError
from sdpo.show import show, show_names

_MOST_NAMED = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleFilter:
    """Filters on recorded attempts; None matches all. `step`: a recorded step, or the first or the last one."""

    step: int | Literal["first", "last"] | None = None
    task: str | None = None
    sample: int | None = None
    success: bool | None = None
    kind: str | None = None

    def matches(self, values: dict[str, Any]) -> bool:
        """Return whether the values of an attempt (see `_values`) pass all filters but that on the step."""
        return all(getattr(self, name) in (None, value) for name, value in values.items())


def choose(view: RunView, wanted: SampleFilter, limit: int) -> list[dict[str, Any]]:
    """Return the first `limit` matching attempts, newest step first, and one more if there are more.

    Raises `ConfigError`, which names the values that occur, if none matches.
    """
    seen: dict[str, set[Any]] = defaultdict(set)
    chosen: list[dict[str, Any]] = []
    for step in _steps(view, wanted):
        for sample in view.samples(step):
            values = _values(sample)
            for name, value in values.items():
                seen[name].add(value)
            if wanted.matches(values):
                chosen.append(sample)
                if len(chosen) > limit:
                    return chosen
    if not chosen:
        raise ConfigError(_no_match(view, wanted, seen))
    return chosen


def _values(sample: dict[str, Any]) -> dict[str, Any]:
    """Return what an attempt has, by the name of the filter."""
    verdict = sample["verdict"]
    return {"task": sample["task"], "sample": sample["sample"], "success": verdict["success"], "kind": verdict["kind"]}


def _steps(view: RunView, wanted: SampleFilter) -> Iterator[int]:
    steps = view.sampled_steps
    if not steps:
        raise ConfigError(
            f"{view.location}: has no recorded attempts; allowed: runs with record.samples_per_step above 0"
        )
    if wanted.step is None:
        yield from reversed(steps)
    elif isinstance(wanted.step, str):
        yield steps[0 if wanted.step == "first" else -1]
    else:
        yield wanted.step


def _no_match(view: RunView, wanted: SampleFilter, seen: dict[str, set[Any]]) -> str:
    where = "a recorded step"
    if wanted.step is not None:
        where = f"the {wanted.step} recorded step" if isinstance(wanted.step, str) else f"step {wanted.step}"
    for name in ("task", "sample", "kind"):
        value, known = getattr(wanted, name), sorted(seen[name])
        if value is not None and value not in known:
            flag = f"--{name} {show(str(value))}"
            return f"{flag}: no attempt of {where} in {view.location} has it; allowed: {show_names(known, _MOST_NAMED)}"
    if wanted.success is not None:
        outcome = "success" if wanted.success else "failure"
        return f"--{outcome}: no attempt of {where} in {view.location} matches it together with the other filters"
    return f"{view.location}: no attempt of {where} matches all filters together; allowed: fewer filters"

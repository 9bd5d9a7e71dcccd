"""Which recorded attempts `sdpo inspect` shows."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from orchestrator.run_view import RunView
from sdpo.errors import ConfigError
from sdpo.show import show

_MOST_NAMED = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """None: whatever it is. `step` is a recorded step, the first or the last one."""

    step: int | Literal["first", "last"] | None = None
    task: str | None = None
    sample: int | None = None
    success: bool | None = None
    kind: str | None = None

    def fits(self, sample: dict[str, Any]) -> bool:
        verdict = sample["verdict"]
        found = (sample["task"], sample["sample"], verdict["success"], verdict["kind"])
        wanted = (self.task, self.sample, self.success, self.kind)
        return all(want is None or want == value for want, value in zip(wanted, found, strict=True))


@dataclass(slots=True)
class _Seen:
    """What occurs in the attempts that were looked at."""

    tasks: dict[str, None] = field(default_factory=dict)
    samples: set[int] = field(default_factory=set)
    kinds: set[str] = field(default_factory=set)

    def add(self, sample: dict[str, Any]) -> None:
        self.tasks[sample["task"]] = None
        self.samples.add(sample["sample"])
        self.kinds.add(sample["verdict"]["kind"])


def choose(view: RunView, wanted: Wanted, limit: int) -> list[dict[str, Any]]:
    """The first `limit` attempts that fit, those of the newest step first; one more if there are more.

    Raises `ConfigError`, which names what occurs, if none fits.
    """
    seen = _Seen()
    chosen: list[dict[str, Any]] = []
    for step in _steps(view, wanted):
        for sample in view.samples(step):
            seen.add(sample)
            if wanted.fits(sample):
                chosen.append(sample)
                if len(chosen) > limit:
                    return chosen
    if not chosen:
        raise ConfigError(_nothing_fits(view, wanted, seen))
    return chosen


def _steps(view: RunView, wanted: Wanted) -> Iterator[int]:
    steps = view.sampled_steps
    if not steps:
        raise ConfigError(f"{view.place}: holds no recorded attempts; record.samples_per_step says how many are kept")
    if wanted.step is None:
        yield from reversed(steps)
    elif isinstance(wanted.step, str):
        yield steps[0 if wanted.step == "first" else -1]
    else:
        yield wanted.step


def _nothing_fits(view: RunView, wanted: Wanted, seen: _Seen) -> str:
    where = "a recorded step"
    if wanted.step is not None:
        where = f"the {wanted.step} recorded step" if isinstance(wanted.step, str) else f"step {wanted.step}"
    occurring = (
        ("--task", wanted.task, list(seen.tasks)),
        ("--sample", wanted.sample, sorted(seen.samples)),
        ("--kind", wanted.kind, sorted(seen.kinds)),
    )
    for flag, value, known in occurring:
        if value is not None and value not in known:
            return f"{flag} {show(str(value))}: no attempt of {where} in {view.place} has it; allowed: {_named(known)}"
    if wanted.success is not None:
        outcome = "success" if wanted.success else "failure"
        return f"--{outcome}: no attempt of {where} in {view.place} fits it together with the other filters"
    return f"{view.place}: no attempt of {where} fits all filters together; allowed: fewer filters"


def _named(values: list[Any]) -> str:
    names = ", ".join(str(value) for value in values[:_MOST_NAMED])
    return names if len(values) <= _MOST_NAMED else f"{names} and {len(values) - _MOST_NAMED} more"

"""What every tracker is asked to do, and what it is told of the run."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

Outcome = Literal["finished", "stopped", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackedRun:
    """A run as its trackers see it, for example name="demo", folder="runs/demo", id="3f9c…" when it goes on.

    `config`: the resolved run file. `settings`: the tracker's section of it. `id`: what `start` returned the first
    time; None at the first start.
    """

    name: str
    folder: str
    config: dict[str, Any]
    settings: dict[str, Any]
    id: str | None = None


class Tracker(Protocol):
    """One library. Every method may raise what the library raises, and may block: the caller has deadlines."""

    def start(self, run: TrackedRun) -> str:
        """Begin the tracked run, or go on with `run.id`; returns its id."""
        ...

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """One row; all values are finite, steps only grow."""
        ...

    def finish(self, outcome: Outcome) -> None:
        """Send what is left and close the tracked run; a later `start` with its id opens it again."""
        ...

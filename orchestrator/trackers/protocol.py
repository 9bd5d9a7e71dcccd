"""The interface of a tracker, and the facts of the run that it is given."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

Outcome = Literal["finished", "stopped", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackedRun:
    """The facts of a run for its trackers, for example name="demo", folder="runs/demo", id="3f9c…" when resumed.

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
        """Start the tracked run, or continue the one with `run.id`; return its id."""
        ...

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Log one row; all values are finite, and steps only grow."""
        ...

    def finish(self, outcome: Outcome) -> None:
        """Send what is left and close the tracked run; a later `start` with its id opens it again."""
        ...

"""The checkpoints of a run, on a disk or in an object store: state.json says that a folder is complete.

checkpoints/step-N.H/            the learner's state after N steps, written by the ranks of the run that holds the run
                                 lock with number H (see `run_lock`); no other holder writes into it
checkpoints/step-N.H/state.json  written last and removed first; without it a folder is never read, and removed by the
                                 next start

On a disk every file is flushed before state.json appears, and its removal before another file is removed. Version
0.1.0 wrote checkpoints/step-N on disks, which was renamed into place when it was complete; such folders are read too.
"""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel

from sdpo.config import CheckpointConfig
from sdpo.errors import CheckpointError
from sdpo.run_layout import CHECKPOINTS, STATE
from sdpo.storage import Store, base_name, join_location

_NAME = re.compile(r"step-(?P<steps>\d+)(\.(?P<holder>\d+))?")
_UNFINISHED = "unfinished-"
"""How the names of unfinished checkpoints began in version 0.1.0."""


class State(BaseModel):
    """state.json: rollout batches done; held-out pass@1 and mean reward of exactly these weights.

    None where it was not measured; version 0.1.0 wrote no reward.
    """

    steps: int
    pass_at_1: float | None = None
    reward: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A complete checkpoint. `location`: the path or URI of its folder; `pass_at_1`, `reward` as in `State`.

    `damage`: what is wrong with state.json, "" for nothing.
    """

    steps: int
    location: str
    pass_at_1: float | None
    reward: float | None = None
    damage: str = ""


def list_checkpoints(store: Store) -> list[Checkpoint]:
    """Return the complete checkpoints of the run directory `store`, the oldest first.

    One whose state.json is damaged counts as one that was not measured.
    """
    numbered = []
    for name in store.names(CHECKPOINTS):
        match = _NAME.fullmatch(name)
        content = store.read(join_location(CHECKPOINTS, name, STATE)) if match else None
        if match is None or (content is None and match["holder"]):
            continue
        steps, location = int(match["steps"]), join_location(store.location, CHECKPOINTS, name)
        try:
            state, damage = State.model_validate_json(content or b""), ""
        except ValueError as error:
            state, damage = State(steps=steps), str(error).splitlines()[0]
        checkpoint = Checkpoint(
            steps=state.steps, location=location, pass_at_1=state.pass_at_1, reward=state.reward, damage=damage
        )
        numbered.append((steps, int(match["holder"] or 0), checkpoint))
    return [checkpoint for _, _, checkpoint in sorted(numbered, key=lambda entry: entry[:2])]


def best_first(checkpoints: Sequence[Checkpoint], best_by: Literal["pass_rate", "reward"]) -> list[Checkpoint]:
    """Return those whose `best_by` was measured, the best first: by held-out pass@1 and then mean reward, or reversed.

    Of equals in both, the newest is first.
    """
    measured = []
    for checkpoint in checkpoints:
        scores = (checkpoint.pass_at_1, checkpoint.reward)
        first, second = scores if best_by == "pass_rate" else reversed(scores)
        if first is not None:
            measured.append((first, -math.inf if second is None else second, checkpoint.steps, checkpoint))
    return [entry[-1] for entry in sorted(measured, key=lambda entry: entry[:3], reverse=True)]


class Checkpoints:
    """The folder `checkpoints/` of a run that holds the run lock. All methods block on the disk or the store."""

    def __init__(self, store: Store, config: CheckpointConfig, holder: Callable[[], int]) -> None:
        """`store`: the run directory; `holder`: returns the number with which this run holds the run lock."""
        self._store, self._config, self._holder = store, config, holder

    def newest(self) -> tuple[str, int] | None:
        """Return the location of the newest checkpoint and its number of steps; an older one is never taken instead.

        Raises `CheckpointError` if state.json is damaged; the learner checks the other files when it loads them.
        """
        checkpoints = list_checkpoints(self._store)
        if not checkpoints:
            return None
        newest = checkpoints[-1]
        if newest.damage:
            raise CheckpointError(
                f"{join_location(newest.location, STATE)}: not a complete checkpoint ({newest.damage}); delete "
                f"{newest.location} to use an older one"
            )
        return newest.location, newest.steps

    def begin(self, steps: int) -> str:
        """Return the location to write the checkpoint after `steps` into; there is no such folder yet.

        Removes unfinished checkpoints.
        """
        self.clear()
        location = join_location(self._store.location, CHECKPOINTS, f"step-{steps:06d}.{self._holder()}")
        self._remove(location)
        return location

    def commit(self, location: str, steps: int, pass_at_1: float | None, reward: float | None = None) -> None:
        """Mark the checkpoint as complete, then delete those that are not to be kept. Scores as in `State`."""
        self._store.sync(_name(location))
        state = State(steps=steps, pass_at_1=pass_at_1, reward=reward)
        self._store.commit(_name(location, STATE), state.model_dump_json().encode())
        self._prune()

    def clear(self) -> None:
        """Remove what this start of the run, or an earlier one, did not finish."""
        complete = {base_name(checkpoint.location) for checkpoint in list_checkpoints(self._store)}
        for name in self._store.names(CHECKPOINTS):
            if name not in complete and (_NAME.fullmatch(name) or name.startswith(_UNFINISHED)):
                self._store.delete_folder(_name(name))

    def _prune(self) -> None:
        checkpoints, config = list_checkpoints(self._store), self._config
        wanted = [*checkpoints[-config.keep_last :], *best_first(checkpoints, config.best_by)[: config.keep_best]]
        for checkpoint in checkpoints:
            if checkpoint not in wanted:
                self._remove(checkpoint.location)

    def _remove(self, location: str) -> None:
        """Remove state.json first: a checkpoint that is half deleted must not look complete."""
        self._store.delete([_name(location, STATE)])
        self._store.sync(_name(location))
        self._store.delete_folder(_name(location))


def _name(location: str, *names: str) -> str:
    """Return the name of a checkpoint, or of a file in it, relative to the run directory."""
    return join_location(CHECKPOINTS, base_name(location), *names)

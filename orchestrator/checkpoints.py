"""The checkpoints of a run: written beside, renamed into place when complete, pruned afterwards.

checkpoints/step-N/          learner state after N steps; state.json, written last: N, and pass@1 if it was measured
checkpoints/unfinished-*/    being written or deleted; never read, removed by the next start
"""

import os
import shutil
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pydantic import BaseModel

from sdpo.config import CheckpointConfig
from sdpo.errors import CheckpointError
from sdpo.files import sync_path, sync_tree, write_atomically


class State(BaseModel):
    """state.json. pass_at_1: held-out, of exactly these weights; None where it was not measured."""

    steps: int
    pass_at_1: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A complete checkpoint. `path`: a URI where the run directory is in a store. pass_at_1 as in `State`."""

    steps: int
    path: Path | str
    pass_at_1: float | None


class CheckpointPlace(Protocol):
    """The folder `checkpoints/` of a run that is locked, on a disk (`Checkpoints`) or in a store."""

    def newest(self) -> tuple[Path | str, int] | None:
        """The newest checkpoint and the number of steps in it; an older one is never taken in its place.

        Raises `CheckpointError` if state.json is damaged; the learner checks the other files when it loads them.
        """

    def begin(self, steps: int) -> Path | str:
        """An empty folder to write the checkpoint after `steps` into. Removes what was left unfinished."""

    def commit(self, begun: Path | str, steps: int, pass_at_1: float | None) -> Path | str:
        """Have a complete checkpoint in its place, then delete those that are not to be kept. Blocks."""

    def clear(self) -> None:
        """Remove what was not finished, by this start of the run or by an earlier one."""


def kept_checkpoints(place: Path) -> list[Kept]:
    """Those that lie in `place`, the oldest first, for reading. One whose state.json is damaged was not measured."""
    return [Kept(steps=_steps_of(path), path=path, pass_at_1=_pass_at_1(path)) for path in _complete(place)]


def best_first(kept: Sequence[Kept]) -> list[Kept]:
    """Those that were measured, by held-out pass@1; of equals, the newest first."""
    measured = [(k.pass_at_1, k.steps, k) for k in kept if k.pass_at_1 is not None]
    return [k for _, _, k in sorted(measured, key=lambda entry: entry[:2], reverse=True)]


class Checkpoints:
    """The folder `checkpoints/` of a run that is locked."""

    def __init__(self, place: Path, config: CheckpointConfig) -> None:
        self._place, self._config = place, config

    def newest(self) -> tuple[Path, int] | None:
        """The newest checkpoint and the number of steps in it; an older one is never taken in its place.

        Raises `CheckpointError` if state.json is damaged; the learner checks the other files when it loads them.
        """
        found = _complete(self._place)
        if not found:
            return None
        file = found[-1] / "state.json"
        try:
            return found[-1], State.model_validate_json(file.read_bytes()).steps
        except (OSError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise CheckpointError(
                f"{file}: not a complete checkpoint ({reason}); delete {found[-1]} to use an older one"
            ) from None

    def begin(self, steps: int) -> Path:
        """An empty folder to write the checkpoint after `steps` into. Removes what was left unfinished."""
        self.clear()
        folder = self._place / f"unfinished-{steps:06d}-{uuid.uuid4().hex[:8]}"
        folder.mkdir(parents=True)
        return folder

    def commit(self, begun: Path | str, steps: int, pass_at_1: float | None) -> Path:
        """Rename a complete checkpoint into place, then delete those that are not to be kept. Blocks on the disk."""
        folder = Path(begun)
        write_atomically(folder / "state.json", State(steps=steps, pass_at_1=pass_at_1).model_dump_json())
        sync_tree(folder)
        place = self._place / f"step-{steps:06d}"
        if place.exists():
            self._remove(place)
        os.replace(folder, place)
        sync_path(self._place)
        self._prune()
        return place

    def clear(self) -> None:
        """Remove what was not finished, by this start of the run or by an earlier one."""
        for folder in self._place.glob("unfinished-*"):
            shutil.rmtree(folder, ignore_errors=True)

    def _prune(self) -> None:
        found = kept_checkpoints(self._place)
        keep = {k.path for k in [*found[-self._config.keep_last :], *best_first(found)[: self._config.keep_best]]}
        for kept in found:
            if kept.path not in keep:
                self._remove(Path(kept.path))

    def _remove(self, path: Path) -> None:
        """Rename first: a checkpoint that is half deleted must not look like one."""
        doomed = self._place / f"unfinished-{uuid.uuid4().hex[:8]}"
        os.replace(path, doomed)
        shutil.rmtree(doomed)


def _complete(place: Path) -> list[Path]:
    return sorted(place.glob("step-*[0-9]"), key=_steps_of)


def _steps_of(path: Path) -> int:
    return int(path.name.removeprefix("step-"))


def _pass_at_1(path: Path) -> float | None:
    try:
        return State.model_validate_json((path / "state.json").read_bytes()).pass_at_1
    except (OSError, ValueError):  # damaged; it was not measured, then
        return None

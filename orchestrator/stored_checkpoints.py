"""The checkpoints of a run whose directory is in an object store: a store renames nothing, so that state.json says that
a folder is whole.

checkpoints/step-N.H/            learner state after N steps, by the lock's holder H (see `orchestrator.lease`), into
                                 which no other holder writes; the learner's ranks put their own files there
checkpoints/step-N.H/state.json  put there last, removed first; without it a folder is never read, and removed by the
                                 next start
"""

import re
from collections.abc import Callable
from pathlib import Path

from orchestrator.checkpoints import Kept, State, best_first
from sdpo.config import CheckpointConfig
from sdpo.errors import CheckpointError
from sdpo.storage import Store, joined

PLACE = "checkpoints"
STATE = "state.json"
_NAME = re.compile(r"step-(?P<steps>\d+)\.(?P<holder>\d+)")


def stored_checkpoints(store: Store) -> list[Kept]:
    """The complete ones, the oldest first, for reading. One whose state.json is damaged was not measured."""
    found = []
    for name in store.names(PLACE):
        match = _NAME.fullmatch(name)
        content = store.read(f"{PLACE}/{name}/{STATE}") if match is not None else None
        if match is None or content is None:
            continue
        try:
            pass_at_1 = State.model_validate_json(content).pass_at_1
        except ValueError:
            pass_at_1 = None
        steps, holder = int(match["steps"]), int(match["holder"])
        found.append(((steps, holder), Kept(steps=steps, path=joined(store.place, PLACE, name), pass_at_1=pass_at_1)))
    return [kept for _, kept in sorted(found, key=lambda entry: entry[0])]


class StoredCheckpoints:
    """As `orchestrator.checkpoints.Checkpoints`; places are URIs."""

    def __init__(self, store: Store, config: CheckpointConfig, holder: Callable[[], int]) -> None:
        """`holder`: the number of the lock's holder."""
        self._store, self._config, self._holder = store, config, holder

    def newest(self) -> tuple[str, int] | None:
        """As `Checkpoints.newest`."""
        found = stored_checkpoints(self._store)
        if not found:
            return None
        place = str(found[-1].path)
        try:
            return place, State.model_validate_json(self._store.read(self._name(place, STATE)) or b"").steps
        except ValueError as error:
            reason = str(error).splitlines()[0]
            raise CheckpointError(
                f"{joined(place, STATE)}: not a complete checkpoint ({reason}); delete {place} to use an older one"
            ) from None

    def begin(self, steps: int) -> str:
        """A folder, without files, to write the checkpoint after `steps` into. Removes what was left unfinished."""
        self.clear()
        place = joined(self._store.place, PLACE, f"step-{steps:06d}.{self._holder()}")
        self._remove(place)
        return place

    def commit(self, begun: Path | str, steps: int, pass_at_1: float | None) -> str:
        """Say that a checkpoint is complete, then delete those that are not to be kept. Blocks on the store."""
        place = str(begun)
        state = State(steps=steps, pass_at_1=pass_at_1).model_dump_json()
        self._store.write(self._name(place, STATE), state.encode())
        self._prune()
        return place

    def clear(self) -> None:
        """Remove what was not finished, by this start of the run or by an earlier one."""
        for name in self._store.names(PLACE):
            if not self._store.exists(f"{PLACE}/{name}/{STATE}"):
                self._store.delete(self._store.listing(f"{PLACE}/{name}"))

    def _prune(self) -> None:
        found = stored_checkpoints(self._store)
        keep = {k.path for k in [*found[-self._config.keep_last :], *best_first(found)[: self._config.keep_best]]}
        for kept in found:
            if kept.path not in keep:
                self._remove(str(kept.path))

    def _remove(self, place: str) -> None:
        """The mark first: a checkpoint that is half deleted must not look like one."""
        folder = self._name(place)
        self._store.delete([joined(folder, STATE), *self._store.listing(folder)])

    def _name(self, place: str, *names: str) -> str:
        return joined(place.removeprefix(self._store.place).strip("/"), *names)

"""A run directory in an object store: the files that go there while the run works in a local copy, and come back.

Checkpoints and the model do not pass here: the learner's ranks write them into the store (see `learner.remote`).
"""

import json
import threading
import time
from pathlib import Path
from typing import Any

from orchestrator.recorded_manifest import NAME as MANIFEST
from sdpo.files import write_atomically
from sdpo.storage import TRANSFER_S, Entry, Store, is_uri
from sdpo.storage_cache import base_name, cache_folder, short_id

ORIGIN = ".origin.json"
"""In a local copy: the URI of the directory that it is a copy of, and the tags of what it holds."""
ELSEWHERE = ("checkpoints", "model", "lease")
"""Folders of a run directory that a local copy does not have."""
NOT_NEEDED = (*ELSEWHERE, "samples", "stacks", "rollouts", "trace")
"""Folders that a run which goes on does not read."""


class RemoteDir:
    """The run directory at `uri`, and `local`, the copy that this run works in."""

    def __init__(self, uri: str, timeout_s: float = TRANSFER_S) -> None:
        self.store = Store(uri)
        self.local = cache_folder("runs", short_id(self.store.place)) / base_name(self.store.place)
        self._timeout_s = timeout_s
        self._there: dict[str, tuple[int, int]] = {}
        self._lock = threading.Lock()

    def pull(self) -> None:
        """Make the local copy what a run needs to go on from the store. Raises `StorageError` or `TransferError`."""
        _remove(self.local, keep=frozenset())
        wanted = [n for n in self.store.listing() if n.split("/")[0] not in NOT_NEEDED or n == f"rollouts/{MANIFEST}"]
        self.store.download({name: self.local / name for name in wanted}, self._timeout_s)
        _write_origin(self.local, self.store.place, {})
        self._there = {name: _state(self.local / name) for name in wanted}

    def push(self) -> None:
        """Have every file of the local copy in the store as it is now. Raises `StorageError` or `TransferError`."""
        with self._lock:
            states = {name: _state(self.local / name) for name in _names(self.local)}
            changed = [name for name, state in states.items() if self._there.get(name) != state]
            self.store.upload({name: self.local / name for name in changed}, self._timeout_s)
            self._there |= {name: states[name] for name in changed}


def reading_copy(place: str | Path) -> Path:
    """A run directory for reading: a path is itself, of a URI a local copy of what lies there now, without checkpoints
    and model. Raises `StorageError` or `TransferError`.
    """
    if isinstance(place, Path) or not is_uri(place):
        return Path(place)
    store = Store(place)
    local = cache_folder("views", short_id(store.place)) / base_name(store.place)
    local.mkdir(exist_ok=True)
    found = {name: entry for name, entry in store.listing().items() if name.split("/")[0] not in ELSEWHERE}
    known = _read_origin(local).get("tags", {})
    changed = [n for n, entry in found.items() if known.get(n) != _tag(entry) or not (local / n).is_file()]
    _remove(local, keep=frozenset(found))
    beside = {name: local / f"{name}.unfinished-{time.monotonic_ns()}" for name in changed}
    store.download(beside)
    for name, file in beside.items():
        file.replace(local / name)
    _write_origin(local, store.place, {name: _tag(entry) for name, entry in found.items()})
    return local


def origin_of(folder: Path) -> str | None:
    """The URI that a local copy of a run directory is of; None for a run directory of its own."""
    found = _read_origin(folder).get("uri")
    return str(found) if found else None


def _names(folder: Path) -> list[str]:
    """Files that are whole and belong to the directory."""
    found = []
    for file in folder.rglob("*"):
        name = file.relative_to(folder).as_posix()
        if file.is_file() and not file.name.startswith(".") and name.split("/")[0] not in ELSEWHERE:
            found.append(name)
    return sorted(found)


def _state(file: Path) -> tuple[int, int]:
    found = file.stat()
    return found.st_size, found.st_mtime_ns


def _tag(entry: Entry) -> str:
    return f"{entry.size} {entry.tag}"


def _remove(folder: Path, keep: frozenset[str]) -> None:
    """All files but those, and folders that are empty then."""
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir() and not path.is_symlink():
            if not any(path.iterdir()):
                path.rmdir()
        elif path.relative_to(folder).as_posix() not in keep and path.name != ORIGIN:
            path.unlink(missing_ok=True)


def _write_origin(folder: Path, uri: str, tags: dict[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / ORIGIN, json.dumps({"uri": uri, "tags": tags}))


def _read_origin(folder: Path) -> dict[str, Any]:
    file = folder / ORIGIN
    found: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {}
    return found

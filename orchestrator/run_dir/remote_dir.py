"""Local copies of run directories in object stores: one that a run works in, and others for reading.

Checkpoints and the model are not in them: the learner's ranks write those into the store (see `learner.remote`).
"""

import json
import threading
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from sdpo.files import write_atomically
from sdpo.run_layout import CHECKPOINTS, LOCK, MANIFEST, MODEL, ROLLOUTS, SAMPLES, STACKS, TRACE
from sdpo.storage import TRANSFER_S, Store, base_name
from sdpo.storage_cache import cache_folder, short_id

ORIGIN = ".origin.json"
"""In a local copy: the URI of the directory that it is a copy of, and the tags of the files that it holds."""
ELSEWHERE = (CHECKPOINTS, MODEL, LOCK)
"""Folders of a run directory that a local copy does not have."""
NOT_NEEDED = (*ELSEWHERE, SAMPLES, STACKS, ROLLOUTS, TRACE)
"""Folders that a resumed run does not read."""


class WorkingCopy:
    """The folder `path` that a run works in: its directory on a disk, or a local copy of its directory in a store."""

    def __init__(self, store: Store, timeout_s: float = TRANSFER_S) -> None:
        self._store, self._timeout_s = store, timeout_s
        self.path = store.path or cache_folder("runs", short_id(store.location)) / base_name(store.location)
        self._stored: dict[str, tuple[int, int]] = {}
        self._lock = threading.Lock()

    def pull(self) -> None:
        """Make `path` what a run needs to begin or to be resumed. Raises `StorageError` or `TransferError`."""
        self.path.mkdir(parents=True, exist_ok=True)
        if self._store.path is not None:
            return
        names = _mirror(self._store, self.path, NOT_NEEDED, {}, self._timeout_s)
        _write_origin(self.path, self._store.location, {})
        self._stored = {name: _state(self.path / name) for name in names}

    def push(self) -> None:
        """Have every file of `path` in the store as it is now. Raises `StorageError` or `TransferError`."""
        if self._store.path is not None:
            return
        with self._lock:
            states = {name: _state(self.path / name) for name in _names(self.path)}
            changed = [name for name, state in states.items() if self._stored.get(name) != state]
            self._store.upload({name: self.path / name for name in changed}, self._timeout_s)
            self._stored |= {name: states[name] for name in changed}


def reading_copy(location: str | Path) -> Path:
    """Return a run directory for reading: a path is itself; of a URI a local copy of what lies there now, without
    checkpoints and model. Raises `StorageError` or `TransferError`.
    """
    store = Store(location)
    if store.path is not None:
        return store.path
    local = cache_folder("views", short_id(store.location)) / base_name(store.location)
    local.mkdir(exist_ok=True)
    tags = _mirror(store, local, ELSEWHERE, _read_origin(local).get("tags", {}))
    _write_origin(local, store.location, tags)
    return local


def origin_of(folder: Path) -> str | None:
    """Return the URI that a local copy of a run directory is of; None for a run directory on a disk."""
    uri = _read_origin(folder).get("uri")
    return str(uri) if uri else None


def _mirror(
    store: Store, folder: Path, skipped: Collection[str], known: Mapping[str, str], timeout_s: float = TRANSFER_S
) -> dict[str, str]:
    """Make `folder` hold what is in the store, except the skipped folders; return the tags of its files, by name.

    Files whose tags are known are not downloaded again; other files of `folder` are removed.
    """
    manifest = f"{ROLLOUTS}/{MANIFEST}"
    entries = {n: entry for n, entry in store.listing().items() if n.split("/")[0] not in skipped or n == manifest}
    tags = {name: f"{entry.size} {entry.tag}" for name, entry in entries.items()}
    changed = [name for name, tag in tags.items() if known.get(name) != tag or not (folder / name).is_file()]
    _remove(folder, keep=frozenset(tags))
    beside = {name: folder / f"{name}.unfinished-{time.monotonic_ns()}" for name in changed}
    store.download(beside, timeout_s)
    for name, file in beside.items():
        file.replace(folder / name)
    return tags


def _names(folder: Path) -> list[str]:
    """Return the files that are complete and belong to the directory."""
    files = [file for file in folder.rglob("*") if file.is_file() and not file.name.startswith(".")]
    names = sorted(file.relative_to(folder).as_posix() for file in files)
    return [name for name in names if name.split("/")[0] not in ELSEWHERE]


def _state(file: Path) -> tuple[int, int]:
    status = file.stat()
    return status.st_size, status.st_mtime_ns


def _remove(folder: Path, keep: frozenset[str]) -> None:
    """Remove all files but those to keep, and the folders that are empty then."""
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir() and not path.is_symlink():
            if not any(path.iterdir()):
                path.rmdir()
        elif path.relative_to(folder).as_posix() not in keep and path.name != ORIGIN:
            path.unlink(missing_ok=True)


def _write_origin(folder: Path, uri: str, tags: dict[str, str]) -> None:
    write_atomically(folder / ORIGIN, json.dumps({"uri": uri, "tags": tags}))


def _read_origin(folder: Path) -> dict[str, Any]:
    file = folder / ORIGIN
    origin: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {}
    return origin

"""Local copies of files in object stores, below $SDPO_CACHE (default ~/.cache/sdpo) of each node.

fetched/ID/NAME    a complete file or folder; ID follows from the URI and from every file's name, size and tag
scratch/           files on their way to or from a store; folders PID-* of processes that have ended may be deleted
runs/ID/NAME       the working copy of a run whose directory is in a store
views/ID/NAME      a copy of such a directory for reading

All of it may be deleted while no process uses it. `fetched` grows with every new version of a URI.
"""

import fcntl
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

from sdpo.config import RunConfig
from sdpo.errors import StorageError, TransferError
from sdpo.storage import TRANSFER_S, Entry, Store, base_name, is_uri

LOOK_EVERY_S = 0.2


def cache_folder(*names: str) -> Path:
    """Make and return a folder of the cache. Raises `StorageError` where that is impossible."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sdpo"
    folder = Path(os.environ.get("SDPO_CACHE") or default).expanduser().joinpath(*names)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(
            f"SDPO_CACHE={folder}: cannot be made: {error.strerror}; allowed: a folder that can be written"
        ) from None
    return folder


def short_id(text: str) -> str:
    """Return a name for `text` in the cache."""
    return sha256(text.encode()).hexdigest()[:16]


def local_disk(location: str) -> Path:
    """Return a path on the disk of this machine that a run directory at `location` fills: its own or the cache's."""
    return cache_folder() if is_uri(location) else Path(location).absolute()


def output_folder(location: str | Path) -> Path:
    """Return the folder for files that are made from `location`: itself, or the current folder for a URI."""
    return Path() if is_uri(location) else Path(location)


def fetched(location: str | Path, timeout_s: float = TRANSFER_S) -> Path:
    """Return a local path with the content of `location`: a path itself; of a URI the copy in the cache, which is
    downloaded if it is missing or no longer the same.

    Of several processes that ask at one time, one downloads. Raises `StorageError` or `TransferError`, one line.
    """
    if not is_uri(location):
        return Path(location)
    deadline_s = time.monotonic() + timeout_s
    store = Store(location)
    entries = _entries(store)
    content = sorted((name, entry.size, entry.tag) for name, entry in entries.items())
    folder = cache_folder("fetched") / short_id(f"{store.location} {content}")
    copy = folder / base_name(store.location)
    with _node_lock(folder.with_suffix(".lock"), store.location, deadline_s):
        if not folder.exists():
            beside = folder.with_name(f"{folder.name}.unfinished-{uuid.uuid4().hex[:8]}")
            try:
                _download(store, entries, beside / copy.name, deadline_s - time.monotonic())
                beside.rename(folder)
            finally:
                shutil.rmtree(beside, ignore_errors=True)
    return copy


@contextmanager
def borrowed(location: str | Path, timeout_s: float = TRANSFER_S) -> Iterator[Path]:
    """Give a local path as `fetched` does; a copy of a URI is removed when the block ends. Raises as `fetched`."""
    if not is_uri(location):
        yield Path(location)
        return
    store = Store(location)
    with scratch() as folder:
        copy = folder / base_name(store.location)
        _download(store, _entries(store), copy, timeout_s)
        yield copy


@contextmanager
def scratch() -> Iterator[Path]:
    """Give an empty folder of the cache, which is removed when the block ends."""
    with tempfile.TemporaryDirectory(prefix=f"{os.getpid()}-", dir=cache_folder("scratch")) as folder:
        yield Path(folder)


def with_local_model(config: RunConfig) -> RunConfig:
    """Return the config with `model.path` as a path of this node: a URI is fetched. Raises as `fetched`."""
    model = config.model.model_copy(update={"path": str(fetched(config.model.path))})
    return config.model_copy(update={"model": model})


def _entries(store: Store) -> Mapping[str, Entry]:
    entries = store.listing()
    if not entries:
        raise StorageError(f"{store.location}: no such file or folder there")
    return entries


def _download(store: Store, entries: Mapping[str, Entry], copy: Path, timeout_s: float) -> None:
    files = {name: copy / name if name else copy for name in entries if not name.endswith("/")}
    store.download(files, timeout_s)
    for name, file in files.items():
        if file.stat().st_size != entries[name].size:
            raise TransferError(f"{store.location}: {name or 'it'} changed while it was read; try again")


@contextmanager
def _node_lock(lock: Path, what: str, deadline_s: float) -> Iterator[None]:
    """Let one process of this node at a time into the block. Raises `TransferError` after the deadline."""
    with lock.open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline_s:
                    raise TransferError(f"{what}: another process did not finish fetching it ({lock})") from None
                time.sleep(LOOK_EVERY_S)
        yield

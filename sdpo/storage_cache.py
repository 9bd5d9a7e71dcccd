"""Local copies of what lies in object stores, below $SDPO_CACHE (default ~/.cache/sdpo) of each node.

fetched/ID/NAME    a file or a folder, whole; ID hangs on the URI and on every file's name, size and tag
scratch/           on its way to or from a store; NAME-PID folders of processes that are gone may be deleted
runs/ID/NAME       the working copy of a run whose directory is in a store
views/ID/NAME      such a directory for reading

Nothing in it is needed: all may be deleted while nothing uses it. `fetched` grows with every new version of a URI.
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
from sdpo.storage import TRANSFER_S, Entry, Store, is_uri

LOOK_EVERY_S = 0.2


def cache_folder(*names: str) -> Path:
    """A folder of the cache, which is made. Raises `StorageError` where that is impossible."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sdpo"
    folder = Path(os.environ.get("SDPO_CACHE") or default).joinpath(*names)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(
            f"SDPO_CACHE={folder}: cannot be made: {error.strerror}; allowed: a folder that can be written"
        ) from None
    return folder


def short_id(text: str) -> str:
    """A name for `text` in the cache."""
    return sha256(text.encode()).hexdigest()[:16]


def base_name(place: str | Path) -> str:
    """The last part of a path or a URI."""
    return str(place).rstrip("/").rpartition("/")[2]


def fetched(place: str | Path, timeout_s: float = TRANSFER_S) -> Path:
    """A path is itself; of a URI the copy in the cache, which is brought if it is not there or no longer the same.

    Of several processes that ask at one time, one brings it. Raises `StorageError` or `TransferError`, one line.
    """
    if isinstance(place, Path) or not is_uri(place):
        return Path(place)
    deadline_s = time.monotonic() + timeout_s
    store = Store(place)
    entries = _entries(store)
    content = sorted((name, entry.size, entry.tag) for name, entry in entries.items())
    folder = cache_folder("fetched") / short_id(f"{store.place} {content}")
    copy = folder / base_name(store.place)
    with _alone(folder.with_suffix(".lock"), store.place, deadline_s):
        if not folder.exists():
            beside = folder.with_name(f"{folder.name}.unfinished-{uuid.uuid4().hex[:8]}")
            try:
                _bring(store, entries, beside / copy.name, deadline_s - time.monotonic())
                beside.rename(folder)
            finally:
                shutil.rmtree(beside, ignore_errors=True)
    return copy


@contextmanager
def borrowed(place: str | Path, timeout_s: float = TRANSFER_S) -> Iterator[Path]:
    """As `fetched`, but a copy of a URI is gone when the block ends. Raises as `fetched`."""
    if isinstance(place, Path) or not is_uri(place):
        yield Path(place)
        return
    store = Store(place)
    with scratch() as folder:
        copy = folder / base_name(store.place)
        _bring(store, _entries(store), copy, timeout_s)
        yield copy


@contextmanager
def scratch() -> Iterator[Path]:
    """An empty folder of the cache, which is gone when the block ends."""
    with tempfile.TemporaryDirectory(prefix=f"{os.getpid()}-", dir=cache_folder("scratch")) as folder:
        yield Path(folder)


def with_local_model(config: RunConfig) -> RunConfig:
    """The same config where `model.path` is a path of this node: a URI is fetched. Raises as `fetched`."""
    if not is_uri(config.model.path):
        return config
    model = config.model.model_copy(update={"path": str(fetched(config.model.path))})
    return config.model_copy(update={"model": model})


def _entries(store: Store) -> Mapping[str, Entry]:
    entries = store.listing()
    if not entries:
        raise StorageError(f"{store.place}: no such file or folder there")
    return entries


def _bring(store: Store, entries: Mapping[str, Entry], copy: Path, timeout_s: float) -> None:
    store.download({name: copy / name if name else copy for name in entries if not name.endswith("/")}, timeout_s)
    for name, entry in entries.items():
        file = copy / name if name else copy
        if not name.endswith("/") and file.stat().st_size != entry.size:
            raise TransferError(f"{store.place}: {name or 'it'} changed while it was read; try again")


@contextmanager
def _alone(lock: Path, what: str, deadline_s: float) -> Iterator[None]:
    """Of all processes of this node, one at a time is inside."""
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

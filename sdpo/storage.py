"""Folders in object stores, by their URI, through fsspec: s3://bucket/models/tiny.

Every request has a deadline and is tried a few times. What a store refuses (no such bucket, no credentials) is a
`StorageError`; what it does not do in time is a `TransferError`. Each is one line that names the URI and the cause.
"""

import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

from sdpo.errors import SdpoError, StorageError, TransferError
from sdpo.files import is_full
from sdpo.show import show_error

REQUEST_S = 60.0
"""For one small request."""
TRANSFER_S = 3600.0
"""For the files of one folder together, where no deadline of the run is shorter."""
PAUSES_S = (0.5, 2.0)
"""Between the tries of one request."""
FILES_AT_ONCE = 8
EXTRAS = {"s3": "sdpo[s3]", "s3a": "sdpo[s3]", "gs": "sdpo[gcs]", "gcs": "sdpo[gcs]"}
"""What to install for a scheme."""
_URI = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_REFUSALS = ("CredentialsError", "TokenRetrievalError", "ProfileNotFound", "RefreshError", "NoRegionError")
_TAGS = ("ETag", "etag", "md5Hash", "LastModified", "mtime", "created")
T = TypeVar("T")


def is_uri(place: str | Path) -> bool:
    """Whether a place names a store (s3://…) and not a path of this machine."""
    return isinstance(place, str) and _URI.match(place) is not None


def joined(place: str, *names: str) -> str:
    """`place/name/…`, of a URI as of a path."""
    return "/".join([place.rstrip("/"), *names])


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of a store. Two contents of one name differ in `tag`, as far as the store can tell."""

    size: int
    tag: str


class Store:
    """The folder at a URI, or at a path of this machine; files by their names relative to it: "checkpoints/x/shard"."""

    def __init__(self, place: str) -> None:
        """Raises `StorageError` for a scheme that is unknown or lacks its package. Asks the store nothing."""
        self.place = place.rstrip("/")
        self._fs, self._root = _open(self.place)

    def listing(self, under: str = "") -> dict[str, Entry]:
        """All files below `under`, at any depth, by their whole names; where `place` is a file itself, that is "".

        Raises `StorageError` where the bucket is missing; a folder without files is empty.
        """
        found = self._answer("listed", under, lambda: self._fs.find(self._at(under), detail=True))
        entries: dict[str, Entry] = {}
        for path, info in found.items():
            name = path.removeprefix(self._root).removeprefix("/")
            if path == self._root or path.startswith(self._root + "/"):
                tag = next((str(info[key]) for key in _TAGS if info.get(key) is not None), "")
                entries[name] = Entry(size=int(info.get("size") or 0), tag=tag)
        return entries

    def names(self, under: str) -> list[str]:
        """What lies directly in `under`, in order; [] if there is no such folder."""
        try:
            found = self._tried("listed", under, lambda: self._fs.ls(self._at(under), detail=False))
        except FileNotFoundError:
            return []
        return sorted(path.rstrip("/").rpartition("/")[2] for path in found)

    def exists(self, name: str) -> bool:
        """Whether there is such a file."""
        return self._tried("looked at", name, lambda: bool(self._fs.exists(self._at(name))))

    def read(self, name: str) -> bytes | None:
        """The file's content; None if there is none such."""
        try:
            return self._tried("read", name, lambda: bytes(self._fs.cat_file(self._at(name))))
        except FileNotFoundError:
            return None

    def write(self, name: str, content: bytes, timeout_s: float = REQUEST_S) -> None:
        """Put the file there, in place of another one."""
        self._answer("written", name, lambda: self._fs.pipe_file(self._at(name), content), timeout_s)

    def create(self, name: str, content: bytes) -> bool:
        """Put the file there if there is none: of all who try, one is told True.

        The one that is told True may have been told nothing the first time: look at what the file holds.
        """
        try:
            self._answer("created", name, lambda: self._create(self._at(name), content))
        except FileExistsError:
            return False
        return True

    def _create(self, at: str, content: bytes) -> None:
        """Exclusively. On a disk the system sees to it: fsspec only looks before it writes."""
        if "file" not in self._fs.protocol:
            self._fs.pipe_file(at, content, mode="create")
            return
        Path(at).parent.mkdir(parents=True, exist_ok=True)
        with open(at, "xb") as file:
            file.write(content)

    def delete(self, names: Iterable[str]) -> None:
        """Remove files; one that is gone is no error."""
        for name in names:
            try:
                self._tried("deleted", name, lambda name=name: self._fs.rm_file(self._at(name)))  # type: ignore[misc]
            except FileNotFoundError:
                continue

    def upload(self, files: Mapping[str, Path], timeout_s: float = TRANSFER_S) -> None:
        """Put local files there, by name; all of them, or an error."""
        self._at_once("written", files, lambda file, at: self._fs.put_file(str(file), at), timeout_s)

    def download(self, files: Mapping[str, Path], timeout_s: float = TRANSFER_S) -> None:
        """Bring files, by name, to local paths, whose folders are made. One that is not there is a `StorageError`."""
        for file in files.values():
            file.parent.mkdir(parents=True, exist_ok=True)
        self._at_once("read", files, lambda file, at: self._fs.get_file(at, str(file)), timeout_s)

    def _at_once(
        self, done: str, files: Mapping[str, Path], move: Callable[[Path, str], object], timeout_s: float
    ) -> None:
        deadline_s = time.monotonic() + timeout_s

        def one(name: str, file: Path) -> None:
            self._answer(done, name, lambda: move(file, self._at(name)), max(0.0, deadline_s - time.monotonic()))

        with ThreadPoolExecutor(FILES_AT_ONCE, thread_name_prefix="sdpo-storage") as pool:
            moved = [pool.submit(one, name, file) for name, file in files.items()]
            try:
                for future in moved:
                    future.result()
            finally:
                pool.shutdown(cancel_futures=True)

    def _answer(self, done: str, name: str, ask: Callable[[], T], timeout_s: float = REQUEST_S) -> T:
        """As `_tried`, where a file or a bucket that is missing is an error of the user's."""
        try:
            return self._tried(done, name, ask, timeout_s)
        except FileNotFoundError as error:
            raise StorageError(f"{self._named(name)}: cannot be {done}: {_cause(error)}") from None

    def _tried(self, done: str, name: str, ask: Callable[[], T], timeout_s: float = REQUEST_S) -> T:
        """Ask until there is an answer. `FileNotFoundError` and `FileExistsError` are answers."""
        deadline_s = time.monotonic() + timeout_s
        for pause_s in (*PAUSES_S, None):
            try:
                return _within(ask, deadline_s - time.monotonic())
            except (FileNotFoundError, FileExistsError):
                raise
            except Exception as error:  # of whatever library the store has
                if isinstance(error, SdpoError) or is_full(error):
                    raise
                if _is_refusal(error):
                    raise StorageError(f"{self._named(name)}: cannot be {done}: {_cause(error)}") from None
                if pause_s is None or time.monotonic() + pause_s >= deadline_s:
                    raise TransferError(f"{self._named(name)}: was not {done}: {_cause(error)}") from error
                time.sleep(pause_s)
        raise AssertionError("the last try returns or raises")

    def _at(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root

    def _named(self, name: str) -> str:
        return joined(self.place, name) if name else self.place


def _open(place: str) -> tuple[Any, str]:
    """The file system and the path in it."""
    fsspec = import_module("fsspec")
    try:
        options = {"use_listings_cache": False} if is_uri(place) else {"auto_mkdir": True}
        fs, root = fsspec.url_to_fs(place, **options)
    except ImportError:
        scheme = place.partition("://")[0]
        extra = EXTRAS.get(scheme, f"the fsspec package for {scheme}")
        raise StorageError(f"{place}: {scheme}:// needs a package that is missing: pip install '{extra}'") from None
    except ValueError as error:
        raise StorageError(f"{place}: {_cause(error)}; allowed: a path, s3://…, gs://… or another of fsspec") from None
    return fs, str(root).rstrip("/")


def _within(ask: Callable[[], T], timeout_s: float) -> T:
    """The answer, or `TimeoutError`; a request without an answer is left to its thread."""
    future: Future[T] = Future()

    def work() -> None:
        try:
            future.set_result(ask())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=work, name="sdpo-request", daemon=True).start()
    try:
        return future.result(max(0.0, timeout_s))
    except TimeoutError:
        if future.done():
            raise
        raise TimeoutError(f"no answer within {timeout_s:.0f} s") from None


def _is_refusal(error: Exception) -> bool:
    return isinstance(error, PermissionError | ImportError) or type(error).__name__.endswith(_REFUSALS)


def _cause(error: BaseException) -> str:
    return show_error(error) or type(error).__name__

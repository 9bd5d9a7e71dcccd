"""Folders on disks and in object stores behind one interface, through fsspec: runs/demo, s3://bucket/models/tiny.

A location is a path of this machine or a URI. Every request has a deadline and is tried a few times. What a store
refuses (no such bucket, no credentials) is a `StorageError`; what it does not do in time is a `TransferError`. Each is
one line that names the location and the cause.
"""

import re
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

from sdpo.errors import SdpoError, StorageError, TransferError
from sdpo.files import is_full, sync_path, sync_tree, write_atomically
from sdpo.show import show_error

REQUEST_S = 60.0
"""Deadline of one small request."""
TRANSFER_S = 3600.0
"""Deadline for the files of one folder together, where no deadline of the run is shorter."""
PAUSES_S = (0.5, 2.0)
"""Pauses between the tries of one request."""
FILES_AT_ONCE = 8
EXTRAS = {"s3": "sdpo[s3]", "s3a": "sdpo[s3]", "gs": "sdpo[gcs]", "gcs": "sdpo[gcs]"}
"""The extra to install for each scheme."""
_URI = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_REFUSALS = ("CredentialsError", "TokenRetrievalError", "ProfileNotFound", "RefreshError", "NoRegionError")
_TAGS = ("ETag", "etag", "md5Hash", "LastModified", "mtime", "created")
_IS_ERROR = object()
T = TypeVar("T")


def is_uri(location: str | Path) -> bool:
    """Return whether a location is in an object store (s3://…), so that it is not a path of this machine."""
    return isinstance(location, str) and _URI.match(location) is not None


def join_location(location: str | Path, *names: str) -> str:
    """Return the location of a file or folder below `location`."""
    return "/".join([str(location).rstrip("/"), *names]) if is_uri(location) else str(Path(location, *names))


def base_name(location: str | Path) -> str:
    """Return the last part of a path or a URI."""
    return str(location).rstrip("/").rpartition("/")[2]


def resolved(location: str | Path) -> str:
    """Return the one spelling that all paths of a folder have in common; a URI stays as it is."""
    return str(location) if is_uri(location) else str(Path(location).resolve())


def can_be_folder(location: str | Path) -> bool:
    """Return whether a folder can be there: a path is looked at, a URI is taken to be one."""
    return is_uri(location) or Path(location).is_dir()


@dataclass(frozen=True, slots=True)
class Entry:
    """Size in bytes and tag of a file. Two contents of one name differ in `tag`, as far as the store can tell."""

    size: int
    tag: str


class Store:
    """The folder at a location; files go by their names relative to it: "checkpoints/x/shard".

    `path` is the folder where it lies on this machine, None in an object store.
    """

    def __init__(self, location: str | Path) -> None:
        """Raises `StorageError` for a scheme that is unknown or lacks its package. Sends no request."""
        self.location = str(location).rstrip("/") or "/"
        self.path = None if is_uri(self.location) else Path(self.location)
        self._fs, self._root = _open(self.location)

    def listing(self, under: str = "") -> dict[str, Entry]:
        """Return all files below `under`, at any depth, by their whole names; where the location is a file itself, its
        name is "".

        Raises `StorageError` where the bucket is missing; a folder without files is empty.
        """
        files = self._answer("listed", under, lambda: self._fs.find(self._at(under), detail=True))
        entries: dict[str, Entry] = {}
        for path, info in files.items():
            name = path.removeprefix(self._root).removeprefix("/")
            if path == self._root or path.startswith(self._root + "/"):
                tag = next((str(info[key]) for key in _TAGS if info.get(key) is not None), "")
                entries[name] = Entry(size=int(info.get("size") or 0), tag=tag)
        return entries

    def names(self, under: str) -> list[str]:
        """Return the sorted names of what lies directly in `under`; [] if there is no such folder."""
        paths = self._answer("listed", under, lambda: self._fs.ls(self._at(under), detail=False), missing=[])
        return sorted(path.rstrip("/").rpartition("/")[2] for path in paths)

    def exists(self, name: str) -> bool:
        """Return whether there is such a file."""
        return bool(self._answer("looked at", name, lambda: self._fs.exists(self._at(name))))

    def read(self, name: str) -> bytes | None:
        """Return the file's content; None if there is no such file."""
        content: bytes | None = self._answer("read", name, partial(self._fs.cat_file, self._at(name)), missing=None)
        return content

    def write(self, name: str, content: bytes, timeout_s: float = REQUEST_S) -> None:
        """Write the file over what was there. On a disk a reader can meanwhile see a part of it."""
        self._answer("written", name, lambda: self._fs.pipe_file(self._at(name), content), timeout_s)

    def commit(self, name: str, content: bytes) -> None:
        """Write the file so that it is there whole or not at all, on a disk also after a power cut."""
        if self.path is None:
            self.write(name, content)
            return
        file = Path(self._at(name))
        file.parent.mkdir(parents=True, exist_ok=True)
        self._answer("written", name, lambda: write_atomically(file, content), TRANSFER_S)  # a busy disk flushes slowly

    def create(self, name: str, content: bytes) -> bool:
        """Write the file if there is none, and return whether this call did it. Of several callers one does.

        Where a try was cut off, a later try of the same call can find the file that the first one made, and returns
        False: look at what the file holds.
        """
        try:
            self._answer("created", name, lambda: self._create(self._at(name), content))
        except FileExistsError:
            return False
        return True

    def _create(self, at: str, content: bytes) -> None:
        """Create a file exclusively. On a disk the system call does it: fsspec looks first and writes then."""
        if self.path is None:
            self._fs.pipe_file(at, content, mode="create")
            return
        Path(at).parent.mkdir(parents=True, exist_ok=True)
        with open(at, "xb") as file:
            file.write(content)

    def delete(self, names: Iterable[str]) -> None:
        """Remove files. One that is gone is no error."""
        for name in names:
            self._answer("deleted", name, partial(self._fs.rm_file, self._at(name)), missing=None)

    def delete_folder(self, name: str) -> None:
        """Remove a folder with everything in it. One that is gone is no error."""
        if self.path is None:
            self.delete(self.listing(name))
        else:
            shutil.rmtree(self._at(name), ignore_errors=True)

    def sync(self, name: str) -> None:
        """Flush a folder, everything in it and its own name to the disk; an object store needs nothing."""
        if self.path is not None and (folder := Path(self._at(name))).is_dir():
            sync_tree(folder)
            sync_path(folder.parent)

    def upload(self, files: Mapping[str, Path], timeout_s: float = TRANSFER_S) -> None:
        """Copy local files there, by name; all of them, or an error."""
        self._at_once("written", files, lambda file, at: self._fs.put_file(str(file), at), timeout_s)

    def download(self, files: Mapping[str, Path], timeout_s: float = TRANSFER_S) -> None:
        """Copy files, by name, to local paths, whose folders are made. A missing file raises `StorageError`."""
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

    def _answer(
        self, done: str, name: str, ask: Callable[[], Any], timeout_s: float = REQUEST_S, missing: Any = _IS_ERROR
    ) -> Any:
        """Do as `_tried`. A file or a bucket that is missing is a `StorageError`, or gives `missing` as the answer."""
        try:
            return self._tried(done, name, ask, timeout_s)
        except FileNotFoundError as error:
            if missing is not _IS_ERROR:
                return missing
            raise StorageError(f"{self._named(name)}: cannot be {done}: {_cause(error)}") from None

    def _tried(self, done: str, name: str, ask: Callable[[], T], timeout_s: float) -> T:
        """Send the request until there is an answer. `FileNotFoundError` and `FileExistsError` are answers."""
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
        return join_location(self.location, name) if name else self.location


def _open(location: str) -> tuple[Any, str]:
    """Return fsspec's file system and the folder in it."""
    fsspec = import_module("fsspec")
    if not is_uri(location):
        return fsspec.filesystem("file", auto_mkdir=True), str(Path(location).absolute())
    try:
        fs, root = fsspec.url_to_fs(location, use_listings_cache=False)
    except ImportError:
        scheme = location.partition("://")[0]
        extra = EXTRAS.get(scheme, f"the fsspec package for {scheme}")
        raise StorageError(f"{location}: {scheme}:// needs a package that is missing: pip install '{extra}'") from None
    except ValueError as error:
        raise StorageError(
            f"{location}: {_cause(error)}; allowed: a path, s3://…, gs://… or another of fsspec"
        ) from None
    return fs, str(root).rstrip("/")


def _within(ask: Callable[[], T], timeout_s: float) -> T:
    """Return the answer, or raise `TimeoutError`; a request without an answer is left to its thread."""
    future: Future[T] = Future()

    def work() -> None:
        try:
            future.set_result(ask())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=work, name="sdpo-request", daemon=True).start()
    if not wait([future], max(0.0, timeout_s)).done:
        raise TimeoutError(f"no answer within {timeout_s:.0f} s")
    return future.result()


def _is_refusal(error: Exception) -> bool:
    return isinstance(error, PermissionError | ImportError) or type(error).__name__.endswith(_REFUSALS)


def _cause(error: BaseException) -> str:
    return show_error(error) or type(error).__name__

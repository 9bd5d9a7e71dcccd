"""Files that appear whole or not at all, also when the machine stops in the middle."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sdpo.errors import CheckpointError

_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def whole_or_absent(file: Path) -> Iterator[Path]:
    """Give the path beside `file` to write it at. When the block ends well, it is flushed and renamed to `file`."""
    beside = file.with_name(f".{file.name}.unfinished")
    yield beside
    sync_path(beside)
    os.replace(beside, file)
    sync_path(file.parent)


def write_atomically(file: Path, content: str | bytes) -> None:
    """Write a file, text as UTF-8, of which a reader sees the old content or the new one."""
    with whole_or_absent(file) as beside:
        beside.write_bytes(content.encode() if isinstance(content, str) else content)


def sync_path(path: Path) -> None:
    """Flush a file's bytes, or a folder's names, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_tree(folder: Path) -> None:
    """Flush a folder and everything in it to the disk."""
    for path in folder.rglob("*"):
        sync_path(path)
    sync_path(folder)


def is_full(error: BaseException) -> bool:
    """Return whether an error says that the disk is full; also an actor's error, and a learner's, which is text."""
    cause = getattr(error, "cause", error)  # Ray's stand-in for an actor's error keeps the error here
    if isinstance(cause, OSError):
        return cause.errno in _FULL
    return isinstance(cause, CheckpointError) and any(os.strerror(number) in str(cause) for number in _FULL)

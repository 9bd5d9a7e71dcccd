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
    """The place beside `file` to write it at. When the context ends well, it is on the disk and renamed to `file`."""
    beside = file.with_name(f".{file.name}.unfinished")
    yield beside
    sync_path(beside)
    os.replace(beside, file)
    sync_path(file.parent)


def write_atomically(file: Path, text: str) -> None:
    """A reader sees the old text or the new one."""
    with whole_or_absent(file) as beside:
        beside.write_text(text, encoding="utf-8")


def sync_path(path: Path) -> None:
    """Have a file's bytes, or a folder's names, on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_tree(folder: Path) -> None:
    """Have a folder and everything in it on the disk."""
    for path in folder.rglob("*"):
        sync_path(path)
    sync_path(folder)


def is_full(error: BaseException) -> bool:
    """Whether an error says that the disk has no room; also one of an actor, and a learner's, which is text."""
    cause = getattr(error, "cause", error)  # Ray's stand-in for an actor's error keeps the error here
    if isinstance(cause, OSError):
        return cause.errno in _FULL
    return isinstance(cause, CheckpointError) and any(os.strerror(number) in str(cause) for number in _FULL)

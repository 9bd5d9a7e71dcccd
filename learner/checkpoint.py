"""What all backends' checkpoints have in common: digests of the files, and errors in one line.

Every rank writes its files and then `digests-rank*.json`, which holds the SHA-256 of what it wrote, so that a
damaged or half-written checkpoint is refused before anything is loaded. All is fsynced.
"""

import errno
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import torch.distributed as dist

from sdpo.errors import CheckpointError
from sdpo.show import show_error

FORMAT = 2


@contextmanager
def writable(folder: str, *errors: type[BaseException]) -> Iterator[None]:
    """Make `folder`; inside, whatever goes wrong in writing is one `CheckpointError` that names it, on every rank.

    `errors`: what is to be caught beside every `Exception`.
    """
    failure = ""
    caught: tuple[type[BaseException], ...] = (Exception, *errors)
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        yield
    except caught as error:
        reason = _lack_of_room(Path(folder)) or error
        failure = f"learner rank {dist.get_rank()} could not write it: {show_error(reason)}"
    agree(folder, failure)


@contextmanager
def readable(folder: str, *errors: type[BaseException]) -> Iterator[None]:
    """Turn what a damaged file makes readers raise into one `CheckpointError`; `errors` adds to the usual ones."""
    caught: tuple[type[BaseException], ...] = (OSError, ValueError, KeyError, EOFError, RuntimeError, *errors)
    try:
        yield
    except caught as error:
        raise CheckpointError(f"checkpoint {folder}: cannot be read: {show_error(error)}") from error


@contextmanager
def synced(path: Path) -> Iterator[BinaryIO]:
    """Open a new file that is on disk when the context ends."""
    with path.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def write_digests(folder: str, backend: str, files: Iterable[Path]) -> None:
    """Record what this rank wrote, after it is on disk."""
    digests = {path.name: _digest(path) for path in sorted(files)}
    record = {"world_size": dist.get_world_size(), "backend": backend, "files": digests}
    with synced(Path(folder) / f"digests-rank{dist.get_rank()}.json") as file:
        file.write(json.dumps(record).encode())


def written_here(folder: Path) -> list[Path]:
    """Return what this rank wrote into `folder`, its digests last."""
    record = folder / f"digests-rank{dist.get_rank()}.json"
    return [*(folder / name for name in json.loads(record.read_text())["files"]), record]


def verify(folder: str, backend: str) -> int:
    """Return how many ranks saved it. Each rank checks its share of the files, and which backend wrote them; all raise
    the same `CheckpointError`, one line. A collective.
    """
    failure, world_size = "", 0
    try:
        world_size, written_by = verify_alone(folder, dist.get_rank(), dist.get_world_size())
        if written_by != backend:
            failure = f"it was written by learner.backend={written_by}, this run has {backend}; allowed: {written_by}"
    except CheckpointError as error:
        failure = str(error).removeprefix(f"checkpoint {folder}: ")
    agree(folder, failure)
    return world_size


def verify_alone(folder: str, rank: int = 0, num_ranks: int = 1) -> tuple[int, str]:
    """Return (how many ranks saved it, the backend that wrote it) after a check of every `num_ranks`-th file from
    `rank` on, by default of all. Raises `CheckpointError`, one line. Local.
    """
    try:
        world_size, backend, digests = _read_digests(Path(folder))
        for name in sorted(digests)[rank::num_ranks]:
            if _digest(Path(folder) / name) != digests[name]:
                raise CheckpointError(f"checkpoint {folder}: {name} is damaged (its SHA-256 is not the recorded one)")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"checkpoint {folder}: a part is missing or damaged: {show_error(error)}") from None
    return world_size, backend


def _lack_of_room(folder: Path) -> OSError | None:
    """Return the system's own words if the disk is full: torch's writers do not always pass them on."""
    try:
        with synced(folder / "probe") as file:
            file.write(bytes(2**20))
    except OSError as error:
        return error if error.errno in (errno.ENOSPC, errno.EDQUOT) else None
    (folder / "probe").unlink()
    return None


def agree(folder: str, failure: str) -> None:
    """Raises the same `CheckpointError` on every rank if one has a `failure`. A collective."""
    failures: list[str] = [""] * dist.get_world_size()
    dist.all_gather_object(failures, failure)
    for text in filter(None, failures):
        raise CheckpointError(f"checkpoint {folder}: {text}")


def _read_digests(folder: Path) -> tuple[int, str, dict[str, str]]:
    first = json.loads((folder / "digests-rank0.json").read_text())
    digests: dict[str, str] = {}
    for rank in range(int(first["world_size"])):
        digests |= json.loads((folder / f"digests-rank{rank}.json").read_text())["files"]
    return int(first["world_size"]), str(first["backend"]), digests


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

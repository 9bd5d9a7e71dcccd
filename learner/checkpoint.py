"""What all backends' checkpoints have in common: digests of the files, and errors in one line.

Every rank writes its files and then `digests-rank*.json`, which holds the SHA-256 of what it wrote, so that a
damaged or half-written checkpoint is refused before anything is loaded. All is fsynced.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch.distributed as dist

from sdpo.errors import CheckpointError

FORMAT = 2


@contextmanager
def writable(folder: str) -> Iterator[None]:
    """Make `folder`; inside, whatever goes wrong in writing is one `CheckpointError` that names it, on every rank."""
    failure = ""
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        yield
    except Exception as error:
        failure = f"learner rank {dist.get_rank()} could not write it: {one_line(error)}"
    _agree(folder, failure)


@contextmanager
def readable(folder: str, *errors: type[Exception]) -> Iterator[None]:
    """Inside, what a damaged file makes readers raise is one `CheckpointError`; `errors` adds to the usual ones."""
    try:
        yield
    except (OSError, ValueError, KeyError, EOFError, RuntimeError, *errors) as error:
        raise CheckpointError(f"checkpoint {folder}: cannot be read: {one_line(error)}") from error


def write_digests(folder: str, files: Iterable[Path]) -> None:
    """Record what this rank wrote, after it is on disk."""
    digests = {path.name: _digest(path) for path in sorted(files)}
    with (Path(folder) / f"digests-rank{dist.get_rank()}.json").open("w") as file:
        json.dump({"world_size": dist.get_world_size(), "files": digests}, file)
        file.flush()
        os.fsync(file.fileno())


def saved_world_size(folder: str) -> int:
    """Ranks that wrote a verified checkpoint."""
    return _read_digests(Path(folder))[0]


def verify(folder: str) -> None:
    """Each rank checks its share of the files; all raise the same `CheckpointError`, one line. A collective."""
    failure = ""
    try:
        _, digests = _read_digests(Path(folder))
        for name in sorted(digests)[dist.get_rank() :: dist.get_world_size()]:
            if _digest(Path(folder) / name) != digests[name]:
                failure = failure or f"{name} is damaged (its SHA-256 is not the recorded one)"
    except (OSError, ValueError, KeyError, TypeError) as error:
        failure = f"a part is missing or damaged: {one_line(error)}"
    _agree(folder, failure)


def one_line(error: Exception) -> str:
    """The error's text on one line of bounded length."""
    return " ".join(str(error).split())[:300]


def _agree(folder: str, failure: str) -> None:
    failures: list[str] = [""] * dist.get_world_size()
    dist.all_gather_object(failures, failure)
    for text in filter(None, failures):
        raise CheckpointError(f"checkpoint {folder}: {text}")


def _read_digests(folder: Path) -> tuple[int, dict[str, str]]:
    world_size = int(json.loads((folder / "digests-rank0.json").read_text())["world_size"])
    digests: dict[str, str] = {}
    for rank in range(world_size):
        digests |= json.loads((folder / f"digests-rank{rank}.json").read_text())["files"]
    return world_size, digests


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

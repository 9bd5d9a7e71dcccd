"""RUN_DIR/ray.json: where the Ray of a live run answers, so that others find it. It goes away with the run."""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypedDict

import ray

from sdpo.errors import InfrastructureError
from sdpo.files import write_atomically

NAME = "ray.json"


class RayAddress(TypedDict):
    """What the file holds."""

    gcs: str
    """host:port of Ray's control store, which knows every node."""
    host: str
    """Of the driver, by name."""
    pid: int
    """Of the driver."""


@contextmanager
def written_address(run_dir: Path) -> Iterator[None]:
    """Inside, where this process is connected to Ray, the file says to which one."""
    gcs = ray.get_runtime_context().gcs_address
    file = run_dir / NAME
    write_atomically(file, json.dumps(RayAddress(gcs=gcs, host=socket.gethostname(), pid=os.getpid())))
    try:
        yield
    finally:
        file.unlink(missing_ok=True)


def read_address(run_dir: Path) -> RayAddress | None:
    """None where no run has its Ray now; a run that was killed leaves the file behind."""
    file = run_dir / NAME
    if not file.is_file():
        return None
    found: RayAddress = json.loads(file.read_text())
    return found


def gcs_of(run_dir: Path, place: str) -> str:
    """Where the live run in `run_dir` has its Ray. Raises `InfrastructureError`, in which the directory is `place`."""
    known = read_address(run_dir)
    if known is None:
        raise InfrastructureError(f"{place}: no run lives there now")
    return known["gcs"]

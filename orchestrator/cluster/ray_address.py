"""RUN_DIR/ray.json: the address of a live run's Ray, by which other commands find it. The run removes it at its end."""

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
from sdpo.run_layout import RAY_ADDRESS


class RayAddress(TypedDict):
    """The content of the file."""

    gcs: str
    """host:port of Ray's control store (GCS)."""
    host: str
    """Host name of the driver."""
    pid: int
    """Process id of the driver."""


@contextmanager
def written_address(run_dir: Path) -> Iterator[None]:
    """Keep the file for the block: the address of the Ray that this process is connected to."""
    gcs = ray.get_runtime_context().gcs_address
    file = run_dir / RAY_ADDRESS
    write_atomically(file, json.dumps(RayAddress(gcs=gcs, host=socket.gethostname(), pid=os.getpid())))
    try:
        yield
    finally:
        file.unlink(missing_ok=True)


def read_address(run_dir: Path) -> RayAddress | None:
    """Return the file's content, None where there is no file; a run that was killed leaves it behind."""
    file = run_dir / RAY_ADDRESS
    if not file.is_file():
        return None
    address: RayAddress = json.loads(file.read_text())
    return address


def gcs_of(run_dir: Path, name: str) -> str:
    """Return the address of the live run in `run_dir`. Raises `InfrastructureError` that calls the directory `name`."""
    address = read_address(run_dir)
    if address is None:
        raise InfrastructureError(f"{name}: no run is active there now")
    return address["gcs"]

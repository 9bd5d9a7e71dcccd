"""Sandboxes of every kind for tests. Without a Docker engine its tests are skipped; in CI (variable CI) they fail."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

from sdpo.config import BubblewrapSandbox, DockerSandbox
from tests.private_engine import PrivateEngine, obstacle

KINDS = ("bubblewrap", "docker")
IMAGE = "sdpo-env:latest"
ENGINE_BYTES = 2 * 2**30
_QUESTION_S = 30.0


@pytest.fixture(scope="session")
def docker_engine() -> str:
    """The name of an image in an engine that answers. Uses the docker command's idea of where the engine is."""
    try:
        command = ["docker", "image", "inspect", "--format", "{{.Id}}", IMAGE]
        answer = subprocess.run(command, capture_output=True, text=True, timeout=_QUESTION_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        _without_docker(f"no Docker engine: {error}")
    if answer.returncode != 0:
        _without_docker(f"no Docker engine with the image {IMAGE} (`make env-image`): {answer.stderr.strip()}")
    return IMAGE


def sandbox_of(kind: str, **limits: Any) -> BubblewrapSandbox | DockerSandbox:
    """A sandbox config of that kind with those limits."""
    return BubblewrapSandbox(**limits) if kind == "bubblewrap" else DockerSandbox(image=IMAGE, **limits)


@pytest.fixture(scope="module", params=KINDS)
def sandbox_kind(request: pytest.FixtureRequest) -> str:
    """Each kind in turn; a test (or module) that uses it runs once per kind."""
    if request.param == "docker":
        request.getfixturevalue("docker_engine")
    return str(request.param)


@pytest.fixture(scope="module")
def sandbox_config(sandbox_kind: str) -> BubblewrapSandbox | DockerSandbox:
    """A small sandbox of each kind in turn."""
    return sandbox_of(sandbox_kind, memory_mib=256, max_processes=16, wall_time_s=3.0)


@pytest.fixture(scope="session")
def private_engine(docker_engine: str) -> Iterator[PrivateEngine]:
    """An engine with the same image that a test may stop; whoever does starts it again."""
    reason = obstacle()
    if reason is not None:
        _without_docker(reason)
    memory = Path("/dev/shm")  # several times faster than a disk to fill and to clear
    place = memory if memory.is_dir() and shutil.disk_usage(memory).free > ENGINE_BYTES else Path("/tmp")
    engine = PrivateEngine(Path(tempfile.mkdtemp(prefix="sdpo-engine-", dir=place)))
    try:
        engine.start()
        engine.load(docker_engine)
        yield engine
    finally:
        engine.remove()


def _without_docker(reason: str) -> NoReturn:
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)

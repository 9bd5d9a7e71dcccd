"""The Docker engine: its address, what it must be able to do, and one clear line when it cannot."""

import os
from dataclasses import dataclass
from functools import cache
from typing import Any

import docker
from docker.errors import DockerException
from requests.exceptions import RequestException

from sdpo.config import DockerSandbox, GvisorSandbox
from sdpo.errors import SandboxUnavailable

Containers = DockerSandbox | GvisorSandbox
ENGINE_ERRORS = (DockerException, RequestException, OSError)
"""What the `docker` package lets through when an engine refuses, breaks or does not answer."""
DEFAULT_ADDRESS = "unix:///var/run/docker.sock"
QUESTION_TIMEOUT_S = 15.0
_LIMITS = {"MemoryLimit": "memory", "PidsLimit": "the number of processes", "CpuCfsQuota": "processor time"}


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """What an engine reported about itself. `remaps_users`: only uids below 65536 exist in its containers."""

    version: str
    remaps_users: bool


class _DirectClient(docker.APIClient):  # type: ignore[misc]
    """A client that never uses http_proxy: no proxy carries the connection to a container's streams."""

    @property
    def trust_env(self) -> bool:
        return False

    @trust_env.setter
    def trust_env(self, value: bool) -> None:
        """Ignore what the base class sets before its first request."""


def address(config: Containers) -> str:
    """Return the address of the engine."""
    return config.engine or os.environ.get("DOCKER_HOST") or DEFAULT_ADDRESS


def connect(config: Containers) -> Any:
    """Return a client with its own connections (docker.APIClient); close it. Raises one of ENGINE_ERRORS."""
    options = docker.utils.kwargs_from_env()
    return _DirectClient(**{**options, "base_url": address(config)}, version="auto", timeout=QUESTION_TIMEOUT_S)


def unavailable(config: Containers, error: BaseException) -> SandboxUnavailable:
    """Return the error for an engine that does not answer."""
    cause = str(error.__cause__ or error.__context__ or error).splitlines()[0][:300]
    return SandboxUnavailable(
        f"env.sandbox.kind={config.kind}: no Docker engine answers at {address(config)} ({cause}); start it, let this "
        "user reach it, or set env.sandbox.engine or DOCKER_HOST"
    )


def no_image(config: Containers) -> SandboxUnavailable:
    """Return the error for an engine without the image."""
    return SandboxUnavailable(
        f"env.sandbox.image={config.image}: the Docker engine at {address(config)} has no such image; build it with "
        "`make env-image`, or pull or name another one"
    )


@cache
def examine(config: Containers, where: str) -> EngineFacts:
    """Check once per process that the engine at `where` can do all that a sandbox relies on.

    Raises SandboxUnavailable, or one of ENGINE_ERRORS where it does not answer.
    """
    client = connect(config)
    try:
        info = client.info()
    finally:
        client.close()
    for name, what in _LIMITS.items():
        if not info.get(name):
            raise SandboxUnavailable(f"the Docker engine at {where} cannot limit {what} ({name} in `docker info`)")
    if isinstance(config, GvisorSandbox):
        _check_runtime(config, where, info)
    options = info.get("SecurityOptions") or []
    if isinstance(config, DockerSandbox) and not any(_filters(option) for option in options):
        raise SandboxUnavailable(
            f"the Docker engine at {where} does not filter system calls (seccomp in `docker info`)"
        )
    remaps = any(option.startswith(("name=userns", "name=rootless")) for option in options)
    return EngineFacts(version=str(info.get("ServerVersion")), remaps_users=remaps)


def _check_runtime(config: GvisorSandbox, where: str, info: dict[str, Any]) -> None:
    runtimes = sorted(info.get("Runtimes") or {})
    if config.runtime not in runtimes:
        raise SandboxUnavailable(
            f"env.sandbox.runtime={config.runtime}: the Docker engine at {where} has no such runtime; it has "
            f"{', '.join(runtimes)}; add gVisor to it, for example with dockerd --add-runtime=runsc=/usr/bin/runsc"
        )


def _filters(option: str) -> bool:
    return option.startswith("name=seccomp") and "unconfined" not in option

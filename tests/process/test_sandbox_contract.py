"""What every kind of sandbox must do with hostile and clumsy programs: one suite, run for each kind."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from env_workers.sandbox.bubblewrap import Bubblewrap
from env_workers.sandbox.engine import connect
from env_workers.sandbox.pool import make_sandbox
from examples.tinycoder.trusted_judge import judge_trusted
from sdpo.config import EnvConfig, GvisorSandbox
from sdpo.config.env import SandboxKind
from sdpo.types import Task
from tests.fixtures.sandbox import IMAGE, KINDS, SandboxedJudge, docker_engine, private_engine, sandbox_of  # noqa: F401

LIMITS: dict[str, Any] = {"memory_mib": 256, "max_processes": 16, "max_files": 500}
SECRET = "expected-outputs-stay-outside"
DOUBLES = "def f(x):\n    return 2 * x"


@pytest.fixture(scope="module", params=(*KINDS, "gvisor"))
def config(request: pytest.FixtureRequest) -> SandboxKind:
    if request.param == "gvisor":
        engine = request.getfixturevalue("private_engine")
        return GvisorSandbox(image=IMAGE, engine=engine.address, **LIMITS, wall_time_s=3.0)
    if request.param == "docker":
        request.getfixturevalue("docker_engine")
    return sandbox_of(request.param, **LIMITS, wall_time_s=3.0)


@pytest.fixture(scope="module")
def judge(config: SandboxKind) -> Iterator[SandboxedJudge]:
    judge = SandboxedJudge(config)
    judge.pool.check()
    yield judge
    judge.pool.close()


@contextmanager
def another(config: SandboxKind, **limits: Any) -> Iterator[SandboxedJudge]:
    """A judge of its own with other limits."""
    judge = SandboxedJudge(config.model_copy(update=limits))
    try:
        yield judge
    finally:
        judge.pool.close()


def task(*tests: tuple[Any, Any]) -> Task:
    cases = [{"kind": "functional", "function": "f", "inputs": [i], "expected": e} for i, e in tests]
    return Task(id="double", messages=(), environment="code", payload={"tests": cases})


DOUBLE = task((3, 6), (10, 20), (-1, -2))
PATIENT = replace(DOUBLE, payload={**DOUBLE.payload, "time_limit_s": 50.0})


def scripts(*cases: tuple[str, str]) -> Task:
    tests = [{"kind": "stdin", "input": given, "expected": expected} for given, expected in cases]
    return Task(id="scripts", messages=(), environment="code", payload={"tests": tests})


def test_a_right_program_passes_and_a_wrong_one_does_not(judge: SandboxedJudge) -> None:
    assert judge(DOUBLES, DOUBLE).reward == 1.0
    verdict = judge("def f(x):\n    return 2 * x if x > 0 else 0", DOUBLE)
    assert (verdict.reward, verdict.kind, verdict.details["num_passed"]) == (0.0, "wrong_answer", 2)


def test_calls_and_scripts_run_in_one_sandbox(judge: SandboxedJudge) -> None:
    judge.pool.check()
    started = judge.num_started
    calls = [{"kind": "functional", "function": "f", "inputs": [x]} for x in (3, -1)]
    assert judge.pool.execute(DOUBLES, calls, 1.0) == [{"status": "returned", "value": v} for v in (6, -2)]
    [script] = judge.pool.execute("print(int(input()) + 1)", [{"kind": "stdin", "input": "41\n"}], 1.0)
    assert script == {"status": "printed", "text": "42\n"}
    assert judge.num_started == started
    assert judge.sandbox.restart_reason is None


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
    "too much written to one file": ("def f(x):\n    open('/tmp/x', 'wb').write(bytes(4 * 10**7))", "file_size_limit"),
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


# gVisor's kernel shows the memory, the files and the processes of an execution late or otherwise: another limit ends
# these, or on a busy machine the sandbox itself (sandbox_violation).
OTHER_LIMITS_UNDER_GVISOR = (
    "fork bomb",
    "too many threads",
    "memory of many processes",
    "memory shared by many",
    "work folder filled",
    "too many files",
)


@pytest.mark.parametrize("name", BAD_PROGRAMS)
def test_bad_program(judge: SandboxedJudge, config: SandboxKind, name: str) -> None:
    program, kind = BAD_PROGRAMS[name]
    if kind == "memory_limit":  # on a busy machine it takes some time to fill
        with another(config, wall_time_s=60.0, cpu_time_s=60.0) as patient:
            verdict = patient(program, PATIENT)
    else:
        verdict = judge(program, DOUBLE)
    assert (verdict.success, verdict.reward, verdict.infrastructure_error) == (False, 0.0, None)
    assert verdict.kind == kind or (config.kind == "gvisor" and name in OTHER_LIMITS_UNDER_GVISOR)
    assert verdict.feedback
    assert judge(DOUBLES, DOUBLE).success  # and no other program suffers


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
def test_harmless_program(judge: SandboxedJudge, config: SandboxKind, name: str) -> None:
    reaches_runner = config.kind == "gvisor" and name == "kills its parent"  # PID 1 can be signalled there
    assert judge(HARMLESS_PROGRAMS[name], DOUBLE).kind == ("sandbox_violation" if reaches_runner else "passed")


REFUSED = {
    "network": ("import socket\ndef f(x):\n    socket.create_connection(('1.1.1.1', 53), 1)", "Network is unreachable"),
    "root": ("def f(x):\n    open('/x', 'w')", "Read-only file system"),
    "usr": ("def f(x):\n    open('/usr/x', 'w')", "Read-only file system"),
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


OTHER_MESSAGES = {
    ("gvisor", "network"): "No route to host",
    ("gvisor", "root"): "Permission denied",
    ("gvisor", "usr"): "Permission denied",
}
# gVisor answers system calls by a kernel of its own, without our filter (docs/threat-model.md).
ANSWERED_BY_GVISOR = ("protocol", "limits of PID 1", "priority of PID 1", "new namespace", "memfd")


@pytest.mark.parametrize("name", REFUSED)
def test_refused(judge: SandboxedJudge, config: SandboxKind, name: str) -> None:
    if config.kind == "gvisor" and name in ANSWERED_BY_GVISOR:
        pytest.skip("gVisor's own kernel answers this call")
    program, message = REFUSED[name]
    assert OTHER_MESSAGES.get((config.kind, name), message) in judge.observe(program)


REFUSED_CALLS = {
    "shared memory": "libc.shmget(1, 4096, 0o1600)",
    "semaphores": "libc.semget(1, 1, 0o1600)",
    "messages": "libc.msgget(1, 0o1600)",
    "queues": "libc.mq_open(b'/x', 0o102, 0o600, None)",
    "memory files": "libc.memfd_create(b'x', 0)",
    "limits of PID 1": "libc.prlimit(1, 7, b'\\x09' + bytes(15), None)",
    "priority of PID 1": "libc.setpriority(0, 1, 19)",
    "host sockets": "libc.socket(40, 1, 0)",
    "namespaces": "libc.unshare(0x10000000)",
    "debugging": "libc.ptrace(16, 1, 0, 0)",
}


def test_what_a_program_has_no_use_for_is_refused(judge: SandboxedJudge, config: SandboxKind) -> None:
    if config.kind == "gvisor":
        pytest.skip("gVisor's own kernel answers these calls")
    calls = ", ".join(f"{name!r}: {call}" for name, call in REFUSED_CALLS.items())
    program = f"import ctypes\nlibc = ctypes.CDLL(None)\ndef f(x):\n    return repr({{{calls}}})"
    assert eval(judge.observe(program)) == dict.fromkeys(REFUSED_CALLS, -1)


def test_nothing_survives_an_execution(judge: SandboxedJudge) -> None:
    daemon = (
        "import os, time\ndef f(x):\n    open('/tmp/left', 'w').write('x')\n"
        "    os.makedirs('/tmp/a/b', exist_ok=True)\n"
        "    if os.fork() == 0:\n        os.setsid()\n        if os.fork() == 0:\n            time.sleep(99)\n"
        "        os._exit(0)\n    return 2 * x"
    )
    assert judge(daemon, DOUBLE).success
    pids = "[p for p in os.listdir('/proc') if p.isdigit()]"
    left = judge.observe(f"import os\ndef f(x):\n    return repr([len({pids}), os.listdir('/tmp')])")
    assert left == "[2, []]"


def test_an_unclean_sandbox_is_replaced(judge: SandboxedJudge) -> None:
    judge.pool.check()
    before = judge.num_started
    judge.observe("import os\ndef f(x):\n    os.makedirs('/tmp/a/b')\n    os.chmod('/tmp/a', 0)")
    assert judge.observe("import os\ndef f(x):\n    return repr(os.listdir('/tmp'))") == "[]"
    assert judge.num_started == before + 1


def test_expected_outputs_cannot_be_found_or_forged(judge: SandboxedJudge) -> None:
    hunt = (
        "import gc, os, sys\ndef f(x):\n    seen = repr(gc.get_objects()) + repr(sys.argv) + repr(dict(os.environ))\n"
        "    frame = sys._getframe()\n    while frame:\n        seen += repr(frame.f_locals)\n"
        "        frame = frame.f_back\n    return ''.join(reversed('stuptuo-detcepxe')) in seen"
    )
    verdict = judge(hunt, task((1, False), (2, SECRET)))
    assert "Output: False" in verdict.feedback
    forge = (
        'import os\nfor fd in range(99):\n    for line in (b\'{"status": "passed"}\\n\', b\'{"reward": 1}\\n\'):\n'
        "        try: os.write(fd, line)\n        except OSError: pass\n"
        "class Any(int):\n    def __eq__(self, other): return True\n    __hash__ = int.__hash__\n"
        "def f(x):\n    return Any()"
    )
    assert judge(forge, DOUBLE).reward == 0.0


def test_scripts_read_and_write_in_every_way(judge: SandboxedJudge) -> None:
    add = scripts(("3\n4\n", "7\n"))
    for program in (
        "print(int(input()) + int(input()))",
        "import sys\nprint(sum(map(int, sys.stdin)))",
        "import sys\nsys.stdout.write(str(sum(map(int, sys.stdin.buffer.read().split()))))",
        "import os\nos.write(1, b'%d' % sum(map(int, open(0))))",
        "print(sum(map(int, open('/dev/stdin'))))\nraise SystemExit",
    ):
        verdict = judge(program, add)
        assert verdict.success, verdict.feedback
    assert judge("print(7)\nraise SystemExit(1)", add).kind == "runtime_error"


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
def test_the_sandbox_says_what_the_current_process_says(judge: SandboxedJudge, slip: str) -> None:
    """Texts made with `judge_trusted`, for pretraining, are worded as in production."""
    program = f"def f(x):\n    {slip}\n"
    trusted = judge_trusted(DOUBLE, f"```python\n{program}\n```")
    verdict = judge(program, DOUBLE)
    assert (verdict.kind, verdict.feedback) == (trusted.kind, trusted.feedback)


def test_the_sum_of_outputs_is_limited(config: SandboxKind) -> None:
    with another(config, wall_time_s=120.0) as judge:
        verdict = judge("print('x' * 60000)", scripts(*[("", "")] * 200))
    assert (verdict.kind, verdict.details["num_tests"]) == ("output_limit", 200)


def test_verdicts_are_the_same_in_every_sandbox(config: SandboxKind) -> None:
    program = "import random\ndef f(x):\n    return repr((set('abcdef'), hash('a'), random.random()))"
    texts = set()
    for _ in range(2):
        with another(config) as judge:
            texts.add(judge(program, DOUBLE).feedback)
    assert len(texts) == 1


def test_an_execution_costs_a_fraction_of_a_sandbox_start(judge: SandboxedJudge, config: SandboxKind) -> None:
    begin = time.monotonic()
    for _ in range(5):
        sandbox = make_sandbox(EnvConfig(sandbox=config), "test-1", "env-start")
        sandbox.start()
        sandbox.close()
    start_s = (time.monotonic() - begin) / 5
    judge(DOUBLES, DOUBLE)
    num_executions = 200 if config.kind == "bubblewrap" else 50
    begin = time.monotonic()
    for _ in range(num_executions):
        assert judge(DOUBLES, DOUBLE).success
    execution_s = (time.monotonic() - begin) / num_executions
    assert execution_s < start_s / 3
    assert config.kind != "docker" or execution_s < 0.1


def test_used_up_sandboxes_are_replaced(config: SandboxKind) -> None:
    with another(config, max_executions=3) as judge:
        for _ in range(5):
            assert judge(DOUBLES, DOUBLE).success
        assert judge.num_started >= 2
        assert judge.pool.counters["sandboxes_discarded"]["executions"] == judge.num_started - 1


def test_a_sandbox_killed_from_outside_is_replaced(judge: SandboxedJudge) -> None:
    judge.pool.check()
    kill(judge)
    judge.pool.check()
    kill(judge)
    assert judge(DOUBLES, DOUBLE).success


def kill(judge: SandboxedJudge) -> None:
    """End the running sandbox behind the worker's back."""
    sandbox = judge.sandbox
    if isinstance(sandbox, Bubblewrap):
        assert sandbox._process is not None
        sandbox._process.kill()
        return
    client = connect(sandbox._config)  # type: ignore[attr-defined]
    client.remove_container(sandbox._container, force=True)  # type: ignore[attr-defined]
    client.close()


def test_long_answers_pass_where_a_test_expects_them(judge: SandboxedJudge) -> None:
    assert judge("def f(x):\n    return list(range(x))", task((5000, list(range(5000))))).kind == "passed"
    assert judge("def f(x):\n    return list(range(x + 1))", task((5000, list(range(5000))))).kind == "wrong_answer"
    assert judge("def f(x):\n    return 'x' * x", task((300_000, "x" * 300_000))).kind == "passed"
    script = {"kind": "stdin", "input": "", "expected": "12345\n" * 50_000}
    printing = replace(DOUBLE, payload={"tests": [script]})
    assert judge("print('12345\\n' * 50_000)", printing).kind == "passed"
    assert judge("print('1' * 300_000)", DOUBLE).kind == "output_limit"
    asserts = {"kind": "asserts", "functions": ["f"], "asserts": ["assert f(9000) == list(range(9000))"]}
    assert judge("def f(x):\n    return list(range(x))", replace(DOUBLE, payload={"tests": [asserts]})).kind == "passed"


def test_integers_of_many_digits_are_printed_and_returned(judge: SandboxedJudge) -> None:
    script = {"kind": "stdin", "input": "9" * 5000, "expected": "9" * 5000}
    of = replace(DOUBLE, payload={"tests": [script]})
    assert judge("print(int(input()))", of).kind == "passed"
    assert judge("print(int(input()) - 1)", of).kind == "wrong_answer"
    assert judge("def f(x):\n    return x + 1", task((10**5000, 10**5000 + 1))).kind == "passed"
    assert judge("def f(x):\n    return x + 2", task((10**5000, 10**5000 + 1))).kind == "wrong_answer"


def test_values_are_compared_as_published_graders_do(judge: SandboxedJudge) -> None:
    counts = "from collections import Counter\ndef f(x):\n    return (Counter('aab'), (1.0, x))"
    assert judge(counts, task((3, [{"a": 2, "b": 1}, [1, 3]]))).kind == "passed"
    assert judge(counts, task((3, [{"a": 2, "b": 2}, [1, 3]]))).kind == "wrong_answer"

"""A stdin test is `python3 Solution.py`: the verdicts of every kind of sandbox are those of plain Python."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sdpo.config import GvisorSandbox
from sdpo.config.env import SandboxKind
from sdpo.types import Task
from tests.fixtures.sandbox import IMAGE, KINDS, SandboxedJudge, docker_engine, private_engine, sandbox_of  # noqa: F401
from tests.fixtures.scripts import FAILING, PASSING, Script, passes_in_python

LIMITS: dict[str, Any] = {"memory_mib": 256, "max_processes": 16, "wall_time_s": 30.0}


@pytest.fixture(scope="module", params=(*KINDS, "gvisor"))
def config(request: pytest.FixtureRequest) -> SandboxKind:
    if request.param == "gvisor":
        engine = request.getfixturevalue("private_engine")
        return GvisorSandbox(image=IMAGE, engine=engine.address, **LIMITS)
    if request.param == "docker":
        request.getfixturevalue("docker_engine")
    return sandbox_of(request.param, **LIMITS)


@pytest.fixture(scope="module")
def judge(config: SandboxKind) -> Iterator[SandboxedJudge]:
    judge = SandboxedJudge(config)
    yield judge
    judge.pool.close()


def task(*scripts: Script, time_limit_s: float = 20.0) -> Task:
    tests = [{"kind": "stdin", "input": given, "expected": expected} for _, given, expected in scripts]
    payload = {"tests": tests, "time_limit_s": time_limit_s}
    return Task(id="script", messages=(), environment="code", payload=payload)


@pytest.mark.parametrize("name", PASSING)
def test_python_passes_it(name: str, tmp_path: Path) -> None:
    assert passes_in_python(PASSING[name], tmp_path)


@pytest.mark.parametrize("name", FAILING)
def test_python_fails_it(name: str, tmp_path: Path) -> None:
    assert not passes_in_python(FAILING[name], tmp_path)


@pytest.mark.parametrize("name", PASSING)
def test_a_sandbox_passes_it(judge: SandboxedJudge, name: str) -> None:
    verdict = judge(PASSING[name][0], task(PASSING[name], PASSING[name]))
    assert verdict.success, (verdict.kind, verdict.feedback)


@pytest.mark.parametrize("name", FAILING)
def test_a_sandbox_fails_it(judge: SandboxedJudge, name: str) -> None:
    verdict = judge(FAILING[name][0], task(FAILING[name], FAILING[name]))
    assert (verdict.success, verdict.infrastructure_error) == (False, None)
    assert verdict.kind in ("wrong_answer", "runtime_error")


LOADS = {
    "a thread": (
        "import threading, time\ntable = {}\n"
        "def fill():\n    time.sleep(0.1)\n    table.update((n, 2 * n) for n in range(9))\n"
        "threading.Thread(target=fill).start()\ndef f(x): return table[x]"
    ),
    "a thread that starts a thread": (
        "import threading, time\ntable = {}\n"
        "def fill():\n    time.sleep(0.1)\n    table.update((n, 2 * n) for n in range(9))\n"
        "threading.Thread(target=lambda: threading.Thread(target=fill).start()).start()\ndef f(x): return table[x]"
    ),
    "an executor": (
        "from concurrent.futures import ThreadPoolExecutor\npool = ThreadPoolExecutor(2)\n"
        "table = list(pool.map(lambda n: 2 * n, range(9)))\ndef f(x): return pool.submit(table.__getitem__, x).result()"
    ),
    "a pool of processes": (
        "from multiprocessing import Pool\ndef double(x): return 2 * x\n"
        "def f(x):\n    with Pool(2) as pool: return pool.map(double, [x])[0]"
    ),
    "a daemon thread": (
        "import queue, threading\nasked, answers = queue.Queue(), queue.Queue()\ndef serve():\n"
        "    while True: answers.put(2 * asked.get())\nthreading.Thread(target=serve, daemon=True).start()\n"
        "def f(x):\n    asked.put(x)\n    return answers.get()"
    ),
    "stdout replaced": "import os, sys\nsys.stdout = open(os.devnull, 'w')\ndef f(x):\n    print(x)\n    return 2 * x",
    "stdout closed": "import sys\nsys.stdout.close()\ndef f(x): return 2 * x",
    "original streams": (
        "import sys\nprint(0, file=sys.__stdout__)\ndef f(x):\n    sys.__stdout__.write('x')\n    return 2 * x"
    ),
    "hooks": "import atexit, sys\natexit.register(sys.exit, 3)\nsys.excepthook = None\ndef f(x): return 2 * x",
    "a main program": "def f(x): return 2 * x\nif __name__ == '__main__':\n    print(f(int(input())))\n    exit()",
}
FUNCTIONAL = [{"kind": "functional", "function": "f", "inputs": [x], "expected": 2 * x} for x in (3, 4)]
ASSERTS = [{"kind": "asserts", "functions": ["f"], "asserts": ["assert [f(3)] == [6]", "assert f(4) == 8"]}]
PLAIN = [{"kind": "asserts", "functions": ["f"], "asserts": ["assert f(3) == 6", "assert f(4) == 8"]}]


@pytest.mark.parametrize("tests", [FUNCTIONAL, ASSERTS, PLAIN], ids=["functional", "asserts", "plain"])
@pytest.mark.parametrize("name", LOADS)
def test_loading_ends_as_a_script_does(judge: SandboxedJudge, name: str, tests: list[dict[str, Any]]) -> None:
    of = Task(id="load", messages=(), environment="code", payload={"tests": tests, "time_limit_s": 20.0})
    verdict = judge(LOADS[name], of)
    assert verdict.success, (verdict.kind, verdict.feedback)
    assert not judge(LOADS[name].replace("2 *", "3 *"), of).success


def test_a_module_whose_thread_never_ends_is_a_timeout(judge: SandboxedJudge) -> None:
    program = "import threading\nthreading.Thread(target=threading.Event().wait).start()\ndef f(x): return 2 * x"
    of = Task(id="load", messages=(), environment="code", payload={"tests": FUNCTIONAL, "time_limit_s": 0.5})
    assert judge(program, of).kind == "timeout"


ENDLESS = {
    "a thread": ("import threading\nprint(1)\nthreading.Thread(target=threading.Event().wait).start()", "timeout"),
    "atexit": ("import atexit, time\nprint(1)\natexit.register(time.sleep, 99)", "timeout"),
    "a child with stdout": ("import os, time\nprint(1, flush=True)\nif os.fork() == 0: time.sleep(99)", "timeout"),
    "a finalizer": ("class A:\n    def __del__(self):\n        while True: pass\na = A()\nprint(1)", "timeout"),
    "output of a finalizer": (
        "class A:\n    def __del__(self, print=print):\n        while True: print('x' * 999)\na = A()",
        "output_limit",
    ),
    "output past Python at exit": (
        "import atexit, os\natexit.register(lambda: [os.write(1, b'x' * 999) for _ in iter(int, 1)])",
        "output_limit",
    ),
    "memory at exit": (
        "import atexit\natexit.register(lambda: kept.append(bytearray(2**30)))\nkept = []\nprint(1)",
        "passed",
    ),
}


@pytest.mark.parametrize("name", ENDLESS)
def test_the_end_of_a_script_keeps_the_limits(judge: SandboxedJudge, name: str) -> None:
    program, kind = ENDLESS[name]
    assert judge(program, task((program, "", "1"), time_limit_s=2.0)).kind == kind
    assert judge("print(1)", task((program, "", "1"))).success


def test_scripts_share_nothing_but_the_folder(judge: SandboxedJudge) -> None:
    program = (
        "import builtins, random, sys\nprint(hasattr(builtins, 'x'), random.random(), sys.argv)\n"
        "builtins.x = sys.argv.append(1)"
    )
    calls = [{"kind": "stdin", "input": ""}] * 3
    texts = {record["text"] for record in judge.pool.execute(program, calls, 20.0)}
    assert len(texts) == 1
    assert texts.pop().startswith("False")


def test_the_time_limit_is_that_of_one_test(judge: SandboxedJudge) -> None:
    slow = ("import time\ntime.sleep(0.3)\nprint(1)", "", "1")
    assert judge(slow[0], task(*[slow] * 8, time_limit_s=2.0)).success
    calls = [{"kind": "functional", "function": "f", "inputs": [x], "expected": 2 * x} for x in range(8)]
    of = Task(id="slow", messages=(), environment="code", payload={"tests": calls, "time_limit_s": 2.0})
    assert judge("import time\ndef f(x):\n    time.sleep(0.3)\n    return 2 * x", of).success


def test_the_processor_time_of_one_script_ends_the_rest(judge: SandboxedJudge, config: SandboxKind) -> None:
    patient = SandboxedJudge(config.model_copy(update={"cpu_time_s": 1.0}))
    calls = [{"kind": "stdin", "input": x} for x in "101"]
    records = patient.pool.execute("n = int(input())\nwhile n == 0: pass\nprint(n)", calls, 30.0)
    patient.pool.close()
    ended = "timeout" if config.kind == "gvisor" else "cpu_limit"  # what gVisor was seen to do
    assert records == [{"status": "printed", "text": "1\n"}, {"status": ended}, {"status": "not_run"}]

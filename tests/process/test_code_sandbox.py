"""The code environment in real sandboxes: asserts in one, the program in another; the same program, the same words."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from env_workers.adapters import load_tasks_with
from env_workers.code.environment import CodeEnvironment
from env_workers.environment import Context, Reply
from env_workers.sandbox.pool import SandboxPool
from sdpo.config import BubblewrapSandbox, EnvConfig
from sdpo.types import Task, Verdict

SANDBOX = BubblewrapSandbox(wall_time_s=3.0, memory_mib=128, max_processes=8, disk_mib=4, max_file_mib=1, max_files=50)
CONFIG = EnvConfig(sandbox=SANDBOX, time_limit_s=1.0, allow_open_asserts=True)


class CodeJudge:
    """A code environment over sandboxes of its own."""

    def __init__(self) -> None:
        self.pool = SandboxPool(CONFIG, "test-owner", "test-worker")
        self._environment = CodeEnvironment(Context(config=CONFIG, sandbox=self.pool))

    def judge(self, task: Task, program: str) -> Verdict:
        return self._environment.judge(task, Reply(text=f"```python\n{program}\n```"))


@pytest.fixture(scope="module")
def sandboxed() -> Iterator[CodeJudge]:
    sandboxed = CodeJudge()
    yield sandboxed
    sandboxed.pool.close()


def listed(*asserts: str, **more: Any) -> Task:
    test = {"kind": "asserts", "functions": ["f"], "asserts": list(asserts), **more}
    return Task(id="t", messages=(), environment="code", payload={"tests": [test]})


def stdin(given: str, expected: str) -> Task:
    test = {"kind": "stdin", "input": given, "expected": expected}
    return Task(id="t", messages=(), environment="code", payload={"tests": [test]})


HUMANEVAL = {
    "task_id": "HumanEval/900",
    "prompt": "def twice(x):\n    return 2 * x\n\ndef spell(xs):\n    '''Twice each.'''\n",
    "entry_point": "spell",
    "test": "def check(candidate):\n    import random\n    rng = random.Random(1)\n    for _ in range(30):\n"
    "        n = rng.randint(1, 99)\n        assert candidate([n]) == [twice(n)]\n    assert candidate([]) == []\n",
}
MBPP = {
    "task_id": 1,
    "prompt": "Count.",
    "code": "from collections import Counter\ndef count(x):\n    return Counter(x)",
    "test_imports": ["import math"],
    "test_list": ["assert count('aab') == {'a': 2, 'b': 1}", "assert math.fsum(count('a').values()) == 1.0"],
}
LCB = {
    "question_id": "q",
    "question_content": "Add.",
    "starter_code": "class Solution:\n    def add(self, a: int, b: List[int]) -> int:\n        ",
    "private_test_cases": json.dumps(
        [{"input": f"{n}\n[1, {n}]", "output": f"{2 * n + 1}", "testtype": "functional"} for n in range(4)]
    ),
    "metadata": '{"func_name": "add"}',
}


@pytest.mark.parametrize(
    ("adapter", "record", "right", "wrong", "words"),
    [
        (
            "humaneval",
            HUMANEVAL,
            "def spell(xs):\n    return [x + x for x in xs]",
            "def spell(xs):\n    return [x + x for x in xs] if xs else None",
            "Test Case 2: Wrong Answer\nInput: spell([])\nOutput: None\nExpected: []",
        ),
        (
            "mbpp",
            MBPP,
            "from collections import Counter as C\ndef count(x):\n    return C(x)",
            "def count(x):\n    return {c: 1 for c in x}",
            "Test Case 1: Wrong Answer\nInput: count('aab')\nOutput: {'a': 1, 'b': 1}\nExpected: {'a': 2, 'b': 1}",
        ),
        (
            "livecodebench",
            LCB,
            "class Solution:\n    def add(self, a: int, b: list[int]):\n        return a + sum(b)",
            "def add(a, b):\n    return a + b[0] + b[0]",
            "Test Case 1: Wrong Answer\nInput: add(0, [1, 0])\nOutput: 2\nExpected: 1",
        ),
    ],
)
def test_records_of_three_sets(
    sandboxed: CodeJudge, tmp_path: Path, adapter: str, record: dict[str, Any], right: str, wrong: str, words: str
) -> None:
    path = tmp_path / "records.jsonl"
    path.write_text(json.dumps(record))
    (task,) = load_tasks_with(adapter, str(path), "heldout", {})
    assert sandboxed.judge(task, right).details["accuracy"] == 1.0
    verdict = sandboxed.judge(task, wrong)
    assert (verdict.success, verdict.feedback.split("\n\n")[0]) == (False, words)
    assert 0 < verdict.details["accuracy"] < 1


ENDINGS = {
    "loop": ("\n        while True: pass", "timeout", "Time Limit Exceeded\nLast Executed Input: f(2)"),
    "exit": (
        "import os; os._exit(3)",
        "runtime_error",
        "The process ended with exit code 3.\nLast Executed Input: f(2)",
    ),
    "deep": ("return f(x)", "runtime_error", "RecursionError: maximum recursion depth exceeded\nLine 2 in f"),
    "sys.exit": ("raise SystemExit(0)", "runtime_error", "Runtime Error\nSystemExit: 0\nLine 2 in f"),
    "memory": ("return [0] * 10**9", "memory_limit", "Memory Limit Exceeded\nLast Executed Input: f(2)"),
    "size": ("open('/tmp/x', 'wb').write(bytes(2**21))", "file_size_limit", "File Size Limit Exceeded\nLast"),
    "files": ("[open(f'/tmp/{i}', 'w').close() for i in range(9**5)]", "file_limit", "File Limit Exceeded\nLast"),
    "open files": ("return [open('/tmp/x', 'a') for i in range(9**5)]", "file_limit", "File Limit Exceeded\nLast"),
    "disk": ("[open(f'/tmp/{i}', 'wb').write(bytes(2**19)) for i in range(40)]", "disk_limit", "Disk Limit Exceeded\n"),
    "threads": (
        "import threading, time; [threading.Thread(target=time.sleep, args=(9,)).start() for i in range(99)]",
        "process_limit",
        "Process Limit Exceeded\nLast Executed Input: f(2)",
    ),
    "flood": ("\n        while True: print('x' * 9999)", "output_limit", "Output Limit Exceeded\nLast"),
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_what_ends_a_program_behind_a_proxy_is_named(sandboxed: CodeJudge, ending: str) -> None:
    body, kind, words = ENDINGS[ending]
    program = f"def f(x):\n    if x > 1: {body}\n    return x"
    verdict = sandboxed.judge(listed("assert f(1) == 1", "assert f(2) == 2", "assert f(0) == 0"), program)
    assert verdict.kind == kind, verdict
    assert words in verdict.feedback
    assert verdict.details["num_passed"] in (1, 2)


def test_a_program_finds_neither_tests_nor_their_values(sandboxed: CodeJudge) -> None:
    """What it can see of the asserts is the arguments of the calls made so far."""
    search = (
        "import gc, sys, os\ndef f(x):\n"
        "    texts = [repr(o) for o in gc.get_objects() if type(o) in (str, dict, list, tuple)]\n"
        "    frame = sys._getframe()\n"
        "    while frame:\n        texts += [repr(frame.f_locals), repr(frame.f_globals)]\n"
        "        frame = frame.f_back\n"
        "    for pid in os.listdir('/proc'):\n"
        "        try: texts.append(open(f'/proc/{pid}/environ').read() + open(f'/proc/{pid}/cmdline').read())\n"
        "        except OSError: pass\n"
        "    return any(''.join(['314', '159']) in text for text in texts)"
    )
    task = listed("secret = 314159\nassert f(1) == 'secret 314159'", "assert f('here is 314159') == secret")
    verdict = sandboxed.judge(task, search)
    assert "Output: False" in verdict.feedback, verdict
    assert "Output: True" in verdict.feedback  # the search does find what is there: an argument
    assert verdict.details["num_passed"] == 0


def test_open_asserts_in_the_sandbox(sandboxed: CodeJudge) -> None:
    program = "class Node:\n    value = 3\ndef f(node):\n    return node.value"
    task = listed("assert f(Node()) == 3", "assert f(Node()) == 4", open=True)
    verdict = sandboxed.judge(task, program)
    assert (verdict.kind, verdict.details["num_passed"]) == ("wrong_answer", 1)


OPEN = "import tempfile, os, sys, time, uuid, random, datetime\n"
MESSY = {
    "object": "print(object())",
    "lambda": "print([lambda: 0, print, OSError, type('A', (), {})()])",
    "identity": "print(id(object()), 'at', id([]))",
    "set": "print({chr(97 + i) for i in range(20)})",
    "mixed set": "print({None, 'a', 1.5, (1, 'b'), frozenset('xyz'), b'q'})",
    "hash": "print(hash('salt'), hash(('a', 1.5)))",
    "random": "print(random.random(), random.sample(range(99), 5))",
    "temporary file": "print(tempfile.NamedTemporaryFile().name)",
    "folder": "print(sorted(os.listdir('/tmp')), os.getcwd())",
    "time with a unit": "t = time.time(); time.sleep(.002); print(f'took {time.time() - t:.6f} seconds')",
    "milliseconds": "print(f'{time.perf_counter() * 1000 % 977:.3f} ms')",
    "clock": "print(datetime.datetime.now(), time.time())",
    "uuid": "print(uuid.uuid4())",
    "missing file": "open(tempfile.mkdtemp() + '/x')",
    "raised object": "raise ValueError(object(), {chr(97 + i) for i in range(9)})",
    "raised in a library": "import json; json.loads('{')",
    "environment": "print(dict(os.environ), sys.argv, sys.path)",
    "warning": "import warnings; warnings.warn('old'); print(sys.flags, os.getuid() * 0, 1 / 0)",
    "attribute of an instance": "type('A', (), {})().x",
    "exhausted": "print([0] * 10**9)",
}


def test_the_same_program_gets_the_same_words(sandboxed: CodeJudge) -> None:
    """In fresh sandboxes: the other one is used before, in another order, and runs each program as asserts too."""
    script, call = stdin("2\n", "7"), listed("assert f(2) == 7")
    other = CodeJudge()
    try:
        for _ in range(7):
            other.judge(script, "x = [object() for _ in range(5000)]; open('/tmp/left', 'w')")
        for name, line in sorted(MESSY.items(), reverse=True):
            program = OPEN + line
            first, second = sandboxed.judge(script, program), other.judge(script, program)
            assert not first.success
            assert first.feedback == second.feedback, name
            function = f"{OPEN}def f(x):\n    {line}\n    return [str(object()), x]"
            assert sandboxed.judge(call, function).feedback == other.judge(call, function).feedback, name
    finally:
        other.pool.close()

"""Asserts of the form f(literals) == literal are judged without a judge process, and come to what it would say."""

from collections.abc import Sequence
from typing import Any

import pytest

from env_workers.code.judge import judge_outcomes
from env_workers.code.outcome import parse_outcomes
from env_workers.code.plain_asserts import read_plain_outcomes
from env_workers.code.tests import parse_tests
from env_workers.runner.program import run_program
from examples.tinycoder.trusted_judge import judge_trusted
from sdpo.types import Task, Verdict


def task(asserts: Sequence[str], setup: str = "import math") -> Task:
    test = {"kind": "asserts", "functions": ["f"], "setup": setup, "asserts": list(asserts)}
    return Task(id="t", messages=(), environment="code", payload={"tests": [test]})


def judge_plainly(of: Task, program: str) -> Verdict:
    tests = parse_tests(of)
    assert tests.plain_asserts is not None
    calls = [plain.record for plain in tests.plain_asserts]
    outcomes = parse_outcomes(list(run_program(program, calls, shared=True)), len(calls))
    return judge_outcomes(read_plain_outcomes(outcomes, tests.plain_asserts), tests)


PROGRAMS: dict[str, str] = {
    "right": "def f(x, k=0):\n    return x + k if k else 2 * x",
    "wrong": "def f(x, k=0):\n    return x",
    "equal but of another type": "def f(x, k=0):\n    return float(x + k if k else 2 * x)",
    "bool for int": "def f(x, k=0):\n    return True",
    "no value": "def f(x, k=0):\n    pass",
    "raises": "def f(x, k=0):\n    return {}[x]",
    "raises for one": "def f(x, k=0):\n    if x == 3: raise ValueError('three')\n    return x + k if k else 2 * x",
    "object that claims to be equal": (
        "class Yes:\n    def __eq__(self, other): return True\n    def __hash__(self): return 4\ndef f(x, k=0):\n"
        "    return Yes()"
    ),
    "int that claims to be equal": (
        "class Yes(int):\n    def __eq__(self, other): return True\n    __hash__ = int.__hash__\ndef f(x, k=0):\n"
        "    return Yes(1)"
    ),
    "state from call to call": "n = 0\ndef f(x, k=0):\n    global n\n    n += 1\n    return 2 * x if n == 1 else n",
    "no function": "def g(x):\n    return x",
    "does not load": "1 / 0",
    "no Python": "def f(x:",
    "not a number": "def f(x, k=0):\n    return float('nan')",
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_verdict_is_the_judges(name: str) -> None:
    of = task(["assert f(2) == 4", "assert 6 == f(3)", "assert f(1, k=2) == 3, 'said'"])
    verdict = judge_plainly(of, PROGRAMS[name])
    assert verdict == judge_trusted(of, f"```python\n{PROGRAMS[name]}\n```")
    assert verdict.success is (name in ("right", "equal but of another type"))


CONTAINERS: dict[str, tuple[str, bool]] = {
    "from collections import Counter\ndef f(x):\n    return Counter(x)": ("{'a': 2}", True),
    "from collections import namedtuple\ndef f(x):\n    return namedtuple('P', 'a b')(*x)": ("('a', 'a')", True),
    "def f(x):\n    return list(x)": ("('a', 'a')", False),
    "def f(x):\n    return set(x)": ("{'a'}", True),
    "def f(x):\n    return frozenset(x)": ("{'a'}", True),
    "def f(x):\n    return x.encode()": ("b'aa'", True),
    "def f(x):\n    return complex(2)": ("2", True),
    "def f(x):\n    return (c for c in x)": ("['a', 'a']", False),
}


@pytest.mark.parametrize("program", CONTAINERS)
def test_values_compare_as_in_an_assert(program: str) -> None:
    expected, success = CONTAINERS[program]
    of = task([f"assert f('aa') == {expected}"])
    verdict = judge_plainly(of, program)
    assert verdict == judge_trusted(of, f"```python\n{program}\n```")
    assert verdict.success is success


@pytest.mark.parametrize(
    "form",
    [
        "assert f(2) != 5",
        "assert f(2)",
        "assert f(math.pi) == 6",
        "assert abs(f(2) - 4) < 1",
        "assert f(f(1)) == 4",
        "x = 4\nassert f(2) == x",
        "assert f(*[2]) == 4",
        "assert f(2) == 4 == 4",
    ],
)
def test_other_forms_are_left_to_the_judge(form: str) -> None:
    assert parse_tests(task([form])).plain_asserts is None
    mixed: Any = parse_tests(task(["assert f(2) == 4", form]))
    assert mixed.plain_asserts is None

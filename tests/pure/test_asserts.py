"""Assert-style tests: how they are cut, what a proxy carries, what is said about a failure; without a sandbox."""

import ast
import json
from functools import partial
from typing import Any

import pytest

from env_workers.code.environment import CodeEnvironment
from env_workers.code.grouping import NotGroupable, group_asserts, group_check
from env_workers.code.outcome import parse_assert_outcomes
from env_workers.code.proxies import what_cannot_be_carried
from env_workers.code.tests import UnsupportedAsserts, parse_tests
from env_workers.environment import Context, Reply
from env_workers.runner.asserts import run_asserts
from examples.tinycoder.trusted_judge import judge_trusted
from sdpo.config import EnvConfig
from sdpo.errors import InfrastructureError, TaskFileError
from sdpo.types import Task, Verdict

CHECK = """
METADATA = {"author": "me"}

def twice(x):
    return 2 * x

def check(candidate):
    import random
    assert True, "this file is read"
    str = [1, 2]
    assert candidate(2) == 4
    for number in range(3):
        str.append(number)
        assert candidate(number) == twice(number), "in a loop"
    assert sum(str) == 6 and abs(candidate(0.25) - 0.5) < 1e-6
"""


def checked(program: str, check: str = CHECK, **more: Any) -> Verdict:
    return judged(program, {"kind": "asserts", "entry_point": "double", "check": check, **more})


def judged(program: str, test: dict[str, Any]) -> Verdict:
    task = Task(id="t", messages=(), environment="code", payload={"tests": [test]})
    return judge_trusted(task, f"```python\n{program}\n```")


def listed(program: str, *asserts: str, function: str = "f") -> Verdict:
    return judged(program, {"kind": "asserts", "functions": [function], "asserts": list(asserts)})


def test_a_check_is_cut_into_statements_that_share_a_scope() -> None:
    setup, groups = group_check(CHECK, "double")
    assert [group.count("assert") for group in groups] == [2, 1, 1]
    assert [group.splitlines()[-1][:22] for group in groups] == [
        "assert double(2) == 4",
        "    assert double(numb",
        "assert sum(str) == 6 a",
    ]
    assert "def twice" in setup
    verdict = checked("def double(x):\n    return x + x")
    assert verdict.success, verdict
    assert verdict.details == {"num_tests": 3, "num_passed": 3, "accuracy": 1.0}


def test_cutting_changes_nothing_of_what_is_run() -> None:
    """Against the plain way: the same groups fail in which the whole test would have raised first."""
    for program in ("x + x", "x * x", "0", "None", "[][x]", "x + x if x != 1 else 3", "2.0 * x", "'a'"):
        source = f"def double(x):\n    return {program}"
        scope: dict[str, Any] = {}
        exec(source + CHECK, scope)
        try:
            scope["check"](scope["double"])
            passes = True
        except Exception:
            passes = False
        assert checked(source).success is passes, program


@pytest.mark.parametrize(
    ("check", "reason"),
    [
        ("def check(candidate):\n    pass", "no assert"),
        ("def other(candidate):\n    assert candidate()", "must define check"),
        ("def check(a, b):\n    assert a(b)", "one argument"),
        ("def check(f):\n    f = 3\n    assert f", "keep its candidate"),
        ("def check(f):\n    assert f(1)\n    yield", "plain function"),
        ("def check(f:\n    assert f(1)", "not Python"),
    ],
)
def test_a_check_that_cannot_be_cut_is_refused(check: str, reason: str) -> None:
    with pytest.raises(NotGroupable, match=reason):
        group_check(check, "f")


def test_asserts_without_an_assert_are_refused() -> None:
    assert group_asserts(["x = 1", "assert x", "assert x == 1", "y = 2"]) == ("x = 1\nassert x", "assert x == 1\ny = 2")
    with pytest.raises(NotGroupable, match="import"):
        group_asserts(["from math import *", "assert pi"])


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("assert f(lambda x: x) == 1", "a function as an argument"),
        ("assert f([1, int]) == 1", r"a function or type as an argument \(int\)"),
        ("assert f(f) == 1", r"as an argument \(f\)"),
        ("assert f(range(3)) == 1", "an iterator as an argument"),
        ("assert f(x for x in 'ab') == 1", "an iterator as an argument"),
        ("x = [3, 1]\nf(x)\nassert x == [1, 3]", "a call for its effect"),
        ("x = []\nassert f(x) is x", "the identity of a value"),
        ("try:\n    f(1)\nexcept ValueError:\n    pass\nassert f(2)", "exceptions as expected results"),
        ("with raises(ValueError):\n    assert f(1)", "exceptions as expected results"),
        ("assert f.__name__ == 'f'", "the attribute f.__name__"),
        ("assert f(Node(3)) == 3", "Node, which only the program can define"),
        ("assert f(1) is None and f(len('a'), list(range(3))) == sorted([1])", None),
        ("assert list(map(f, [1, 2])) == [abs(f(1)), 2]", None),
    ],
)
def test_what_a_proxy_cannot_carry_is_seen_in_the_tests(source: str, reason: str | None) -> None:
    if reason is None:
        assert what_cannot_be_carried("", [source], ["f"]) is None
        return
    payload = {"tests": [{"kind": "asserts", "functions": ["f"], "asserts": [source]}]}
    task = Task(id="t", messages=(), environment="code", payload=payload)
    with pytest.raises(UnsupportedAsserts, match=f"task t: .* needs .*{reason}"):
        parse_tests(task)
    parse_tests(
        Task(id="t", messages=(), environment="code", payload={"tests": [{**payload["tests"][0], "open": True}]})
    )


@pytest.mark.parametrize(
    ("test", "error"),
    [
        ({"functions": ["f"], "asserts": []}, r"tests\[0\].asserts is \[\]"),
        ({"functions": ["f("], "asserts": ["assert f()"]}, "Python identifiers"),
        ({"asserts": ["assert f()"]}, r"tests\[0\].functions is none"),
        ({"functions": ["f"], "asserts": ["assert f()"], "check": ""}, "unknown key asserts"),
        ({"functions": ["f"], "asserts": ["assert f()"], "open": 1}, r"open is 1"),
        ({"functions": ["f"], "asserts": ["assert f()"], "setup": "import"}, "setup is not Python"),
    ],
)
def test_a_bad_payload_names_task_and_key(test: dict[str, Any], error: str) -> None:
    with pytest.raises(TaskFileError, match=error) as caught:
        parse_tests(Task(id="t", messages=(), environment="code", payload={"tests": [{"kind": "asserts", **test}]}))
    assert str(caught.value).startswith("task t: ")


EXPLAINED = [
    (
        ["assert f(2, k=[1]) == 4"],
        "def f(x, k):\n    return x",
        "wrong_answer",
        "Test Case 1: Wrong Answer\nInput: f(2, k=[1])\nOutput: 2\nExpected: 4",
    ),
    (
        ["assert 4 == f(2)", "assert f(1) == 1"],
        "def f(x):\n    return x",
        "wrong_answer",
        "Test Case 1: Wrong Answer\nInput: f(2)\nOutput: 2\nExpected: 4",
    ),
    (
        ["assert abs(f(2) - 4) < 1e-6, 'near'"],
        "def f(x):\n    return x",
        "wrong_answer",
        "Test Case 1: Wrong Answer\nInput: f(2)\nOutput: 2\nExpected: assert abs(f(2) - 4) < 1e-6",
    ),
    (
        ["assert abs(f(2) - 4) < 1e-6"],
        "def f(x):\n    print(x)",
        "wrong_answer",
        "Test Case 1: Wrong Answer\nInput: f(2)\nOutput: None\nExpected: assert abs(f(2) - 4) < 1e-6",
    ),
    (
        ["assert set(f([2])) == {2}"],
        "def f(x):\n    yield 2",
        "wrong_answer",
        "Test Case 1: Wrong Answer\nInput: f([2])\nOutput: a value of type generator\n"
        "Expected: assert set(f([2])) == {2}",
    ),
    (
        ["assert f(1) == 1", "assert f(0) == 1"],
        "def f(x):\n    return 1 // x",
        "runtime_error",
        "Runtime Error\nZeroDivisionError: integer division or modulo by zero\nLine 2 in f (Solution.py)\n"
        "Last Executed Input: f(0)",
    ),
    (
        ["assert f(1) == 1"],
        "def f(x)\n    return 1",
        "syntax_error",
        "Syntax Error\nSyntaxError: expected ':'\nLine 1 (Solution.py): def f(x)",
    ),
    (
        ["assert f(1) == 1"],
        "def g(x):\n    return 1",
        "runtime_error",
        "Runtime Error\nNameError: the program does not define f\nLast Executed Input: f(1)",
    ),
    (
        ["assert f(1) == 1"],
        "def f(x):\n    raise MemoryError",
        "memory_limit",
        "Memory Limit Exceeded\nLast Executed Input: f(1)",
    ),
]


@pytest.mark.parametrize(("asserts", "program", "kind", "text"), EXPLAINED)
def test_feedback_on_a_failed_assert(asserts: list[str], program: str, kind: str, text: str) -> None:
    verdict = listed(program, *asserts)
    assert (verdict.reward, verdict.kind, verdict.feedback) == (0.0, kind, text)


def test_values_compare_as_they_would_in_one_process() -> None:
    """A Counter equals a dict, a named tuple a tuple, a match is true; a lying __eq__ does not travel."""
    counting = (
        "from collections import *\ndef f(x):\n    return [Counter(x), namedtuple('P', 'a b')(1, OrderedDict(c=2))]"
    )
    assert listed(counting, "assert f('aab') == [{'a': 2, 'b': 1}, (1, {'c': 2})]").success
    matching = "import re\ndef f(x):\n    return re.match('a', x)"
    assert listed(matching, "assert f('a')", "assert not f('b')", "assert f('b') is None").success
    lying = "class L(int):\n    def __eq__(self, other): return True\n    __hash__ = None\ndef f(x):\n    return L(3)"
    assert listed(lying, "assert f(1) == 2").kind == "wrong_answer"
    assert listed(f"{lying.replace('L(3)', '[L(3)]')}", "assert f(1) == [2]").kind == "wrong_answer"


def _say(answer: Any, message: Any) -> Any:
    return answer


def test_what_a_program_forges_is_never_a_pass() -> None:
    """A program that takes over its process can answer a call with any record; the judge's own words it cannot say."""
    forged: list[Any] = [
        {"status": "passed"},
        {"status": "program", "outcome": {"status": "passed"}},
        {"status": "failed", "text": ""},
        {"status": "returned", "value": ["set", [["list", []]]]},
        {"status": "returned"},
        {"status": "not_run"},
        {"status": ["passed"]},
        [],
        None,
        7,
    ]
    for answer in forged:
        records = list(run_asserts("", ["assert f(1) == 2"], ["f"], partial(_say, answer)))
        (outcome,) = parse_assert_outcomes(json.loads(json.dumps(records)), 1)
        assert outcome.status == "garbled", answer
    other = {"status": "returned_other", "type": "x", "truth": True, "value": 2}
    records = list(run_asserts("", ["assert f(1) == 2"], ["f"], lambda message: other))
    assert records[0]["status"] == "failed"


def test_a_broken_judge_is_no_feedback() -> None:
    for record in ({"status": "raised", "type": "ImportError"}, {"status": "unsupported", "type": "a lambda"}, 7):
        with pytest.raises(InfrastructureError):
            parse_assert_outcomes([record], 1)


def test_the_tests_hide_a_programs_exceptions_from_their_own_handlers() -> None:
    test = "total = 0\nfor x in [1, 0]:\n    total += f(x)\nassert total == 1"
    verdict = listed("def f(x):\n    return 1 // x", test)
    assert verdict.feedback.startswith("Runtime Error\nZeroDivisionError")
    early = "if f(1) == 1:\n    assert f(1) == 1\n    return\nassert False is f(1)"
    tests = {"kind": "asserts", "entry_point": "f", "check": "def check(c):\n    " + early.replace("\n", "\n    ")}
    assert judged("def f(x):\n    return x", tests).success
    assert not judged("def f(x):\n    return 3", tests).success


def test_open_asserts_run_in_the_programs_process_and_need_leave() -> None:
    program = "class Node:\n    def __init__(self, x):\n        self.x = x\ndef f(node):\n    return node.x"
    asserts = ["n = Node(3)\nassert f(n) == 3", "n.x = 4", "assert f(n) == 4"]
    test = {"kind": "asserts", "functions": ["f"], "open": True, "asserts": asserts}
    assert judged(program, test).success
    wrong = judged(program.replace("node.x", "3"), test)
    assert wrong.details["accuracy"] == 0.5
    assert wrong.feedback.endswith("Output: the assertion does not hold\nExpected:\nn.x = 4\nassert f(n) == 4")
    broken = judged(program.replace("node.x", "node.y"), test)
    assert "AttributeError: 'Node' object has no attribute 'y'\nLine 5 in f (Solution.py)\nLast" in broken.feedback
    unclosed = judged(program + "\nx = (", test)
    assert "SyntaxError: '(' was never closed\nLine 6 (Solution.py): x = (" in unclosed.feedback
    task = Task(id="t", messages=(), environment="code", payload={"tests": [test]})
    environment = CodeEnvironment(Context(config=EnvConfig(), sandbox=None))  # type: ignore[arg-type]
    with pytest.raises(TaskFileError, match=r"open=true: allowed: only with env\.allow_open_asserts=true"):
        environment.judge(task, Reply(text="```python\nx = 1\n```"))


def test_groups_stay_python_when_they_are_indented() -> None:
    test = {"kind": "asserts", "functions": ["f"], "open": True, "asserts": ['assert f("""a\nb""") == "a\\nb"']}
    assert judged("def f(x):\n    return x", test).success
    assert ast.parse(group_check('def check(c):\n    assert c("""a\n  b""") == 3', "f")[1][0])

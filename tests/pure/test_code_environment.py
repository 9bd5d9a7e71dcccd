"""Extraction, comparison, task parsing, feedback and verdicts of the code environment, without a sandbox."""

import re
from typing import Any

import pytest

from env_workers.code import feedback
from env_workers.code.compare import same_text, same_value
from env_workers.code.extract import extract_program
from env_workers.code.judge import judge_outcomes
from env_workers.code.outcome import Outcome, parse_outcomes
from env_workers.code.show import show
from env_workers.code.tests import CodeTests, FunctionalTest, calls_of, parse_tests
from env_workers.runner.codec import TooLargeError, UnsupportedError, decode, encode
from examples.tinycoder.trusted_judge import judge_trusted
from sdpo.errors import InfrastructureError, TaskFileError
from sdpo.types import Task, Verdict


def task(*tests: dict[str, Any], **payload: Any) -> Task:
    return Task(id="double", messages=(), environment="code", payload={"tests": list(tests), **payload})


def functional(argument: Any, expected: Any) -> dict[str, Any]:
    return {"kind": "functional", "function": "f", "inputs": [argument], "expected": expected}


DOUBLE = task(functional(3, 6), functional(10, 20))
ADD = task({"kind": "stdin", "input": "1\n2\n", "expected": "3\n"})


def judge(program: str, of: Task = DOUBLE) -> Verdict:
    return judge_trusted(of, f"Here:\n```python\n{program}\n```\n")


@pytest.mark.parametrize(
    ("text", "program"),
    [
        ("```python\nx = 1\n```", "x = 1\n"),
        ("```\nx = 1\n```", "x = 1\n"),
        ("A draft:\n```python\na_much_longer_draft = 1\n```\nThe answer:\n```py\nb\n```", "b\n"),
        ("```python\nx = 1\n```\nIt prints\n```\n6\n7\n8\n```\n```text\n9\n```", "x = 1\n"),
        ("```text\nno\n```\n```\nx = 1\n```\n```json\n{}\n```", "x = 1\n"),
        ("```Solution.py\nx = 1\n```", "x = 1\n"),
        ("```python\nx = 1\n```\n```python\n\n```", "x = 1\n"),
        ("```Python title=a.py\nx = 1\n```", "x = 1\n"),
        ("~~~python\nx = 1\n~~~", "x = 1\n"),
        ("````python\nx = '''\n```\n'''\n````", "x = '''\n```\n'''\n"),
        ("```python\ndef f():\n    '''As in:\n    ```\n    f()\n    ```\n    '''\n```",
         "def f():\n    '''As in:\n    ```\n    f()\n    ```\n    '''\n"),
        ("1. So:\n   ```python\n   if x:\n       y\n   ```\n", "if x:\n    y\n"),
        ("1. ```python\n   if x:\n       y\n   ```\n", "if x:\n    y\n"),
        ("    ```python\n    if x:\n        y\n    ```\n", "if x:\n    y\n"),
        ("Answer: ```python\nx = 1\n```", "x = 1\n"),
        ("```python\nx = 1```", "x = 1\n"),
        ("```python\nnever closed\n\n```python\nx = 1\n```", "x = 1\n"),
        ("```python\r\nx = 1\r\n```\r\n", "x = 1\r\n"),
        ("no program", None),
        ("```python\nx = 1", None),
        ("```python\n\n  \n```", None),
        ("`inline` ```not a block```", None),
        ("~~struck~~ and ~~~~ and\nx\n~~~~", None),
    ],
)  # fmt: skip
def test_extracts_the_last_closed_block_of_python(text: str, program: str | None) -> None:
    assert extract_program(text) == program


@pytest.mark.parametrize(
    ("actual", "expected", "same", "exact"),
    [
        (1, 1, True, True),
        (1, True, True, False),
        (1, 1.0, True, False),
        ((1, 2), [1, 2], True, False),
        ([(1, (2,)), {"a": (3,)}], [[1, [2]], {"a": [3]}], True, False),
        ([1, [2.0]], [1, [2]], True, False),
        ({1: "a", 2: "b"}, {2: "b", 1: "a"}, True, True),
        ({1: "a", -2: "b"}, {"1": "a", "-2": "b"}, True, False),
        ({1}, {1.0}, True, False),
        (float("nan"), float("nan"), True, True),
        ([float("nan")], (float("nan"),), True, False),
        ([10**5000], [10**5000], True, True),
        ((1, 2), [1, 2, 3], False, False),
        ((2, 1), [1, 2], False, False),
        ((), [[]], False, False),
        ([1, 2], {1, 2}, False, False),
        ([1], 1, False, False),
        ({1: "a", "1": "b"}, {"1": "a"}, False, False),
        ({1: "a", "1": "a"}, {"1": "a", "2": "a"}, False, False),
        ({True: "a"}, {"True": "a"}, False, False),
        ({1.0: "a"}, {"1.0": "a"}, False, False),
        ({"01": "a"}, {1: "a"}, False, False),
        (float(2**53), 2**53 + 1, False, False),
        (0.1 + 0.2, 0.3, False, False),
        ("1", 1, False, False),
        ("1.0", "1", False, False),
        (None, False, False, False),
        (None, 0, False, False),
        ("", None, False, False),
        ("[1]", [1], False, False),
        (b"a", "a", False, False),
        (float("nan"), 1.0, False, False),
    ],
)
def test_compares_values_as_published_graders_or_exactly(actual: Any, expected: Any, same: bool, exact: bool) -> None:
    assert same_value(actual, expected) is same
    assert same_value(actual, expected, "exact") is exact


@pytest.mark.parametrize(
    ("actual", "expected", "same", "exact"),
    [
        ("1 \r\n2\n\n", "1\n2", True, True),
        ("\n1", "1", True, False),
        ("  1\n\t a b", "1\na b", True, False),
        ("0.50", "0.5", True, False),
        ("1.0 2", "1  2.00", True, False),
        ("1e3 +5 -0", "1000 5 0", True, False),
        ("1" * 5000 + ".0", "1" * 5000, True, False),
        ("a b", "a  b", False, False),
        ("x 0.50", "x 0.5", False, False),
        ("1\n2", "1 2", False, False),
        ("1\n\n2", "1\n2", False, False),
        ("0.5", "0.51", False, False),
        ("0.3333333", "0.33333333", False, False),
        ("0011", "11", False, False),
        ("1_0", "10", False, False),
        ("\u0661", "1", False, False),
        ("nan", "NaN", False, False),
        ("inf", "Infinity", False, False),
        ("0x10", "16", False, False),
        ("1e999999999999", "1e99999999999999", False, False),
        ("yes", "YES", False, False),
        ("", "0", False, False),
        ("12", "1 2", False, False),
    ],
)
def test_compares_text_as_published_graders_or_exactly(actual: str, expected: str, same: bool, exact: bool) -> None:
    assert same_text(actual, expected) is same
    assert same_text(actual, expected, "exact") is exact


def test_a_task_may_ask_for_exact_comparison() -> None:
    assert judge("def f(x):\n    return 2.0 * x").success
    assert not judge("def f(x):\n    return 2.0 * x", task(functional(3, 6), comparison="exact")).success
    script = {"kind": "stdin", "input": "", "expected": "3"}
    assert judge("print(' 3.0')", task(script)).success
    assert not judge("print(' 3.0')", task(script, comparison="exact")).success
    with pytest.raises(TaskFileError, match=r"payload.comparison is loose; allowed: value, exact"):
        parse_tests(task(functional(1, 2), comparison="loose"))
    asserts = {"kind": "asserts", "functions": ["f"], "asserts": ["assert f(1)"]}
    with pytest.raises(TaskFileError, match=r"payload.comparison is exact; allowed: value, for asserts"):
        parse_tests(task(asserts, comparison="exact"))


COMPARE_LIKE_BUILT_INS = [
    ("from collections import defaultdict\ndef f(x):\n    return defaultdict(list, a=[x])", {"a": [3]}),
    ("from collections import Counter\ndef f(x):\n    return [Counter('aab')]", [{"a": 2, "b": 1}]),
    ("from collections import OrderedDict\ndef f(x):\n    return OrderedDict(b=1, a=x)", {"a": 3, "b": 1}),
    ("from collections import namedtuple\ndef f(x):\n    return namedtuple('P', 'x y')(x, (1, 2))", [3, [1, 2]]),
    ("from enum import IntEnum\nclass C(IntEnum):\n    A = 1\ndef f(x):\n    return [C.A, x]", [1, 3]),
    ("from fractions import Fraction\ndef f(x):\n    return [Fraction(x, 2), Fraction(4, 2)]", [1.5, 2]),
    ("from decimal import Decimal\ndef f(x):\n    return Decimal(x) / 2", 1.5),
    ("def f(x):\n    return {x: (1, 2)}", {"3": [1, 2]}),
]
DIFFER_FROM_BUILT_INS = [
    ("from fractions import Fraction\ndef f(x):\n    return Fraction(1, x)", 1 / 3),
    ("from decimal import Decimal\ndef f(x):\n    return Decimal('NaN')", 1.0),
    ("class L(list):\n    def __eq__(self, other):\n        return True\ndef f(x):\n    return L()", [3]),
    ("class D(dict):\n    def __eq__(self, other):\n        return True\ndef f(x):\n    return D(a=3)", {"a": 3}),
    ("from collections import deque\ndef f(x):\n    return deque([x])", [3]),
    ("def f(x):\n    return range(2)", [0, 1]),
    ("def f(x):\n    return {x}", [3]),
    ("from collections import defaultdict\ndef f(x):\n    return defaultdict(int, a=x)", {"a": 4}),
]


@pytest.mark.parametrize(("program", "expected"), COMPARE_LIKE_BUILT_INS)
def test_what_compares_like_a_built_in_value_is_one(program: str, expected: Any) -> None:
    assert judge(program, task(functional(3, expected))).success


@pytest.mark.parametrize(("program", "expected"), DIFFER_FROM_BUILT_INS)
def test_what_is_no_built_in_value_or_another_fails(program: str, expected: Any) -> None:
    assert judge(program, task(functional(3, expected))).kind == "wrong_answer"


@pytest.mark.parametrize(
    "value",
    [None, True, 0, -(2**80), 1.5, float("inf"), 1 + 2j, "\ud800é", b"\0", [1, (2,), {3}], {"a": frozenset({None})}],
)
def test_values_survive_the_wire(value: Any) -> None:
    assert same_value(decode(encode(value, 10_000)), value)


def test_other_types_do_not_travel() -> None:
    class Liar(int):
        def __eq__(self, other: object) -> bool:
            return True

    for value in (Liar(3), [object()], iter([1])):
        with pytest.raises(UnsupportedError):
            encode(value, 10_000)
    with pytest.raises(TooLargeError):
        encode([0] * 1000, 1000)
    nested: list[Any] = []
    nested.append(nested)
    with pytest.raises(UnsupportedError, match="nested too deeply"):
        encode(nested, 10_000)


@pytest.mark.parametrize(
    ("payload", "key"),
    [
        ({}, "payload.tests"),
        ({"tests": []}, "payload.tests"),
        ({"tests": [3]}, r"payload.tests\[0\]"),
        ({"tests": [{"kind": "magic"}]}, r"payload.tests\[0\].kind is magic; allowed: functional, stdin or asserts"),
        ({"tests": [functional(1, 2), {"kind": "stdin", "input": 3, "expected": ""}]}, r"tests\[1\].input is 3"),
        ({"tests": [{**functional(1, 2), "function": "f("}]}, r"tests\[0\].function is f\(;"),
        ({"tests": [{**functional(1, 2), "inputs": 5}]}, r"tests\[0\].inputs is 5"),
        ({"tests": [{**functional(1, 2), "expcted": 5}]}, "unknown key expcted"),
        ({"tests": [functional(1, object())]}, r"tests\[0\].expected holds a value of type object"),
        ({"tests": [functional("x" * 2**22, 2)]}, r"tests\[0\].inputs is larger than 4194304 bytes"),
        ({"tests": [functional("x" * 2**19, 2)] * 260}, "payload.tests has 1363.* bytes of inputs"),
        ({"tests": [functional(1, 2)], "time_limit_s": -1}, "payload.time_limit_s is -1"),
        ({"tests": [functional(1, 2)], "time_limit_s": True}, "payload.time_limit_s is true"),
    ],
)
def test_a_bad_payload_names_task_and_key(payload: dict[str, Any], key: str) -> None:
    with pytest.raises(TaskFileError, match=key) as caught:
        parse_tests(Task(id="double", messages=(), environment="code", payload=payload))
    assert str(caught.value).startswith("task double: ")
    assert "\n" not in str(caught.value)


def test_expected_outputs_are_not_part_of_the_calls() -> None:
    secret = "the expected output"
    tests = parse_tests(task(functional(1, secret), {"kind": "stdin", "input": "", "expected": secret}))
    assert secret not in repr(calls_of(tests))


def test_passing_says_nothing() -> None:
    verdict = judge("def f(x):\n    print('noise')\n    return 2 * x")
    assert (verdict.reward, verdict.success, verdict.kind, verdict.feedback) == (1.0, True, "passed", "")
    assert verdict.details["accuracy"] == 1.0
    assert judge("class Solution:\n    def f(self, x):\n        return 2 * x").success
    assert judge("a = int(input())\nprint(a + int(input()))", ADD).success


EXPLAINED = [
    (
        "def f(x):\n    return triple(x)",
        "runtime_error",
        "Runtime Error\nNameError: name 'triple' is not defined\nLine 2 in f (Solution.py)\nLast Executed Input: f(3)",
    ),
    (
        "def f(x):\n    return x +* 2",
        "syntax_error",
        "Syntax Error\nSyntaxError: invalid syntax\nLine 2 (Solution.py): return x +* 2",
    ),
    (
        "def f(x):\n    return x + 3",
        "wrong_answer",
        "Test Case 2: Wrong Answer\nInput: f(10)\nOutput: 13\nExpected: 20",
    ),
    (
        "def f(x):\n    return x / 0.5 + 1 if x > 3 else 6",
        "wrong_answer",
        "Test Case 2: Wrong Answer\nInput: f(10)\nOutput: 21.0\nExpected: 20",
    ),
    (
        "def f(x):\n    return object() if x > 3 else 6",
        "wrong_answer",
        "Test Case 2: Wrong Answer\nInput: f(10)\nOutput: a value of type object\nExpected: 20",
    ),
    (
        "def g(x):\n    return x",
        "runtime_error",
        "Runtime Error\nNameError: the program does not define f\nLast Executed Input: f(3)",
    ),
    (
        "def f(x):\n    raise MemoryError",
        "memory_limit",
        "Memory Limit Exceeded\nLast Executed Input: f(3)",
    ),
    (
        "def f(x):\n    while True:\n        print('x' * 999)",
        "output_limit",
        "Output Limit Exceeded\nLast Executed Input: f(3)",
    ),
    (
        "def f(x):\n    raise SystemExit(3)",
        "runtime_error",
        "Runtime Error\nSystemExit: 3\nLine 2 in f (Solution.py)\nLast Executed Input: f(3)",
    ),
]


@pytest.mark.parametrize(("program", "kind", "text"), EXPLAINED)
def test_feedback_wording(program: str, kind: str, text: str) -> None:
    """The wording of FEEDBACK_VERSION 1: models are pretrained on it."""
    verdict = judge(program)
    assert (verdict.reward, verdict.success, verdict.kind, verdict.feedback) == (0.0, False, kind, text)
    assert feedback.FEEDBACK_VERSION == "1"


def test_a_script_that_prints_the_wrong_thing() -> None:
    verdict = judge("print(input())", ADD)
    assert verdict.feedback == "Test Case 1: Wrong Answer\nInput:\n1\n2\nOutput: 1\nExpected: 3"


def test_no_program() -> None:
    verdict = judge_trusted(DOUBLE, "I do not know")
    assert (verdict.kind, verdict.reward, verdict.feedback) == ("no_program", 0.0, feedback.NO_PROGRAM)
    verdict = judge_trusted(DOUBLE, "```python\ndef f(", truncated=True)
    assert (verdict.kind, verdict.reward, verdict.feedback) == ("truncated", 0.0, feedback.TRUNCATED)
    assert judge_trusted(DOUBLE, "```python\ndef f(x):\n return 2 * x\n```\nAnd", truncated=True).success


def outcomes(*statuses: str) -> list[Outcome]:
    return [Outcome(status=status, value=-1, type_name="ValueError") for status in statuses]


def cases(*pairs: tuple[Any, Any]) -> CodeTests:
    return CodeTests(tests=tuple(FunctionalTest(function="f", inputs=(i,), expected=e) for i, e in pairs))


@pytest.mark.parametrize(
    ("statuses", "kind"),
    [
        (("returned", "timeout", "raised"), "runtime_error"),
        (("returned", "timeout", "not_run"), "timeout"),
        (("returned", "process_limit", "not_run"), "process_limit"),
        (("returned", "killed", "not_run"), "runtime_error"),
        (("returned", "returned", "returned"), "wrong_answer"),
    ],
)
def test_priority_of_explanations(statuses: tuple[str, ...], kind: str) -> None:
    verdict = judge_outcomes(outcomes(*statuses), cases((1, 1), (2, 2), (3, 3)))
    assert (verdict.kind, verdict.reward) == (kind, 0.0)


def test_at_most_two_wrong_answers_the_shortest_first() -> None:
    verdict = judge_outcomes(outcomes(*["returned"] * 3), cases(("long" * 9, 1), ("medium", 2), ("a", 3)))
    assert re.findall(r"Test Case (\d)", verdict.feedback) == ["3", "2"]


def test_budgets_keep_head_and_tail() -> None:
    long_lines = "".join(f"{i} {'z' * 300} end\n" for i in range(20))
    verdict = judge("print('y' * 1000)", task({"kind": "stdin", "input": long_lines, "expected": "w" * 1000}))
    lines = verdict.feedback.splitlines()
    assert [line[:9] for line in lines[2:7]] == ["0 zzzzzzz", "1 zzzzzzz", "... (17 m", "19 zzzzzz", "Output: y"]
    assert all(line.endswith("z end") for line in lines[2:4])
    assert lines[-1] == f"Expected: {'w' * 166}... (750 more characters) ...{'w' * 84}"
    short_lines = "".join(f"{i}\n" for i in range(20))
    verdict = judge("print(1)", task({"kind": "stdin", "input": short_lines, "expected": ""}))
    assert "\n5\n... (12 more lines)\n18\n19\nOutput: 1" in verdict.feedback
    many = [{"kind": "stdin", "input": long_lines, "expected": str(i)} for i in range(3)]
    assert len(judge("print('v' * 999)", task(*many)).feedback) <= feedback.MAX_CHARS
    deep = "class E(Exception): pass\ndef f(x):\n    raise E('w ' * 9999 + 'end')"
    text = judge(deep).feedback
    assert "w end\nLine 3 in f" in text
    assert len(text) <= feedback.MAX_CHARS


def test_feedback_is_deterministic() -> None:
    body = "raise ValueError(f'{object()} in /usr/lib/python3.11/json/x.py took 0.123 s, \\ud800')"
    first = judge(f"def f(x):\n    {body}").feedback
    assert "ValueError: <object object at 0x...> in <path> took <time>, \\ud800\n" in first
    first.encode()
    assert show({"b", "a"}) == "{'a', 'b'}"
    assert show((frozenset(), {"k": (1,)})) == "(frozenset(), {'k': (1,)})"
    assert show(10**5000) == "an integer of 16610 bits"


def test_forged_records_are_the_programs_own_fault() -> None:
    forged = [{"status": "returned", "value": ["set", [["list", []]]]}, {"status": "passed"}, {"status": 3}, 7]
    assert [o.status for o in parse_outcomes(forged, 4)] == ["garbled"] * 4
    with pytest.raises(InfrastructureError):
        parse_outcomes(forged, 3)
    with pytest.raises(InfrastructureError):
        parse_outcomes(None, 0)

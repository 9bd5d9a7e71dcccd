"""LiveCodeBench, HumanEval and MBPP: records of their form become tasks; each fault is one line that names it."""

import base64
import json
import logging
import pickle
import zlib
from pathlib import Path
from typing import Any

import pytest

from env_workers.adapters import load_tasks_with
from env_workers.code.tests import parse_tests
from examples.tinycoder.trusted_judge import judge_trusted
from sdpo.errors import TaskFileError
from sdpo.types import Task


def packed(data: Any) -> str:
    """As the data set holds private tests."""
    return base64.b64encode(zlib.compress(pickle.dumps(data))).decode()


def stdin_tests(count: int) -> list[dict[str, str]]:
    return [{"input": f"{n}\n", "output": f"{n + 1}\n", "testtype": "stdin"} for n in range(count)]


CALLS = [{"input": f'[{n}, 1.5]\n"a b\\n"\nnull', "output": f"[{n}, true]", "testtype": "functional"} for n in range(5)]
STARTER = "class Solution:\n    def pick(self, nums: List[float], s: str, x: Optional[int]) -> List[int]:\n        "


def lcb(number: int, **fields: Any) -> dict[str, Any]:
    record = {
        "question_id": f"q{number}",
        "question_content": "Read n, print n + 1.",
        "starter_code": "",
        "contest_date": f"2025-0{1 + number % 4}-15T00:00:00",
        "platform": "atcoder" if number % 2 else "leetcode",
        "difficulty": "easy",
        "public_test_cases": json.dumps(stdin_tests(1)),
        "private_test_cases": packed(json.dumps(stdin_tests(7))),
        "metadata": json.dumps({}),
    }
    return record | fields


FUNCTION = {"starter_code": STARTER, "private_test_cases": json.dumps(CALLS), "metadata": '{"func_name": "pick"}'}


def write(folder: Path, *records: dict[str, Any]) -> str:
    path = folder / "records.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


def cases_of(task: Task) -> list[dict[str, Any]]:
    tests: list[dict[str, Any]] = task.payload["tests"]
    return tests


def test_lcb_trains_on_half_of_the_tests_and_evaluates_on_all(tmp_path: Path) -> None:
    path = write(tmp_path, lcb(1), lcb(2, private_test_cases=json.dumps(stdin_tests(1))), lcb(3))
    train, again = (load_tasks_with("livecodebench", path, "train", {}) for _ in range(2))
    heldout = load_tasks_with("livecodebench", path, "heldout", {})
    other = load_tasks_with("livecodebench", path, "train", {"seed": 1})
    assert train == again != other
    assert [len(cases_of(task)) for task in train] == [3, 1, 3]
    assert [len(cases_of(task)) for task in heldout] == [7, 1, 7]
    inputs = [test["input"] for test in cases_of(train[0])]
    assert inputs == sorted(inputs)
    assert all(test in cases_of(heldout[0]) for test in cases_of(train[0]))
    assert judge_trusted(train[0], "```python\nprint(int(input()) + 1)\n```").success
    (message,) = train[0].messages
    assert message.content.startswith("You are a coding expert.")
    assert "The time limit of each test is 1 second." in message.content
    assert message.content.endswith("\n\nRead n, print n + 1.")


@pytest.mark.parametrize("adapter", ["livecodebench", "humaneval", "mbpp"])
def test_the_question_names_packages_that_programs_may_import(tmp_path: Path, adapter: str) -> None:
    record = {"livecodebench": lcb(1), "humaneval": HUMANEVAL, "mbpp": MBPP}[adapter]
    options = {"packages": ["numpy 2.3", "scipy"]}
    (plain,), (named,) = (load_tasks_with(adapter, write(tmp_path, record), "train", o) for o in ({}, options))
    before, after = plain.messages[0].content, named.messages[0].content
    assert after.replace(" Beside the standard library it may import: numpy 2.3, scipy.", "") == before
    assert len(after) > len(before)


def test_lcb_functions_lose_their_class_and_inputs_are_json_by_line(tmp_path: Path) -> None:
    (task,) = load_tasks_with("livecodebench", write(tmp_path, lcb(1, **FUNCTION)), "heldout", {"tests": "private"})
    assert task.messages[0].content.endswith(
        "```python\nfrom typing import List, Optional\n\n"
        "def pick(nums: List[float], s: str, x: Optional[int]) -> List[int]:\n```"
    )
    assert cases_of(task)[2] == {
        "kind": "functional",
        "function": "pick",
        "inputs": [[2, 1.5], "a b\n", None],
        "expected": [2, True],
    }
    for program in (
        "def pick(nums, s, x):\n    return [nums[0], x is None]",
        "class Solution:\n    def pick(self, nums, s, x):\n        return [nums[0], True]",
    ):
        assert judge_trusted(task, f"```python\n{program}\n```").success


def test_lcb_chooses_problems_and_tests(tmp_path: Path) -> None:
    path = write(tmp_path, *(lcb(n) for n in range(1, 9)))

    def ids(purpose: Any = "heldout", **options: Any) -> list[str]:
        return [task.id for task in load_tasks_with("livecodebench", path, purpose, options)]

    assert ids(start_date="2025-02-01", end_date="2025-04-01") == ["q1", "q2", "q5", "q6"]
    assert ids(end_date="2025-02-15") == ["q4", "q8"]
    assert ids(platforms=["atcoder"], end_date="2025-03-01") == ["q1", "q5"]
    evaluated, trained = ids(heldout_questions=0.25), ids("train", heldout_questions=0.25)
    assert len(evaluated) == 2
    assert sorted(evaluated + trained) == ids()
    assert ids(heldout_questions=0.25, seed=3) != evaluated
    options = {"heldout_questions": 0.25, "tests": "both"}
    assert all(len(cases_of(t)) == 8 for t in load_tasks_with("livecodebench", path, "train", options))


def test_lcb_refuses_large_tests_or_drops_them(tmp_path: Path) -> None:
    large = [{"input": "x" * (2**22 + 1), "output": "", "testtype": "stdin"}, *stdin_tests(2)]
    path = write(tmp_path, lcb(1, private_test_cases=packed(json.dumps(large))))
    with pytest.raises(TaskFileError, match=r"task q1: payload.tests\[0\].input is longer than"):
        parse_tests(load_tasks_with("livecodebench", path, "heldout", {})[0])
    (task,) = load_tasks_with("livecodebench", path, "heldout", {"oversized": "drop"})
    assert len(parse_tests(task).tests) == 2


def test_answers_that_no_sandbox_can_give_are_dropped_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    large = {"input": "1", "output": "9\n" * 3 * 2**20, "testtype": "stdin"}
    small = {"input": "1", "output": "9", "testtype": "stdin"}
    records = [lcb(i, private_test_cases=packed(json.dumps(tests))) for i, tests in ((1, [large, small]), (2, [large]))]
    path = write(tmp_path, *records)
    with pytest.raises(TaskFileError, match=r"task q1: payload.tests\[0\].expected is longer than"):
        parse_tests(load_tasks_with("livecodebench", path, "heldout", {})[0])
    (task,) = load_tasks_with("livecodebench", path, "heldout", {"oversized": "drop"})
    assert (task.id, len(parse_tests(task).tests)) == ("q1", 1)
    assert "dropped 2 oversized tests, and 1 problems with no other: q2" in caplog.text


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, ("raise SystemError('it was run')",))


@pytest.mark.parametrize(
    ("record", "error"),
    [
        (lcb(1, private_test_cases=packed(Bomb())), "private_test_cases=.*allowed: JSON, or base64 of zlib"),
        (lcb(1, private_test_cases=packed([1])), "private_test_cases=.*allowed: JSON"),
        (lcb(1, private_test_cases="eJw="), "private_test_cases=.*allowed: JSON"),
        (lcb(1, private_test_cases="{}"), "private_test_cases=.*allowed: a list of tests"),
        (lcb(1, private_test_cases="[]"), "at least one test"),
        (
            lcb(1, private_test_cases=json.dumps([{**CALLS[0], "testtype": "x"}])),
            "testtype=.*allowed: stdin, functional",
        ),
        (lcb(1, **{**FUNCTION, "metadata": "{}"}), "metadata: func_name: missing"),
        (
            lcb(1, **{**FUNCTION, "private_test_cases": json.dumps([{**CALLS[0], "input": "[1"}])}),
            "input=.*allowed: JSON",
        ),
        (lcb(1, contest_date="soon"), "contest_date=.*allowed: a date"),
    ],
)
def test_a_bad_lcb_record_names_line_and_key(tmp_path: Path, record: dict[str, Any], error: str) -> None:
    path = write(tmp_path, lcb(2), record)
    with pytest.raises(TaskFileError, match=f"records.jsonl, line 2: .*{error}"):
        load_tasks_with("livecodebench", path, "heldout", {"start_date": "2025-01-01"})


def test_lcb_options_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TaskFileError, match=r"test_fraction=0\.3: allowed: not beside heldout_questions"):
        load_tasks_with(
            "livecodebench", write(tmp_path, lcb(1)), "train", {"test_fraction": 0.3, "heldout_questions": 0.5}
        )
    with pytest.raises(TaskFileError, match="no problem is left"):
        load_tasks_with("livecodebench", write(tmp_path, lcb(1)), "train", {"start_date": "2026-01-01"})


HUMANEVAL = {
    "task_id": "HumanEval/900",
    "prompt": "from typing import List\n\ndef half(x):\n    return x / 2\n\ndef halves(xs: List[int]):\n"
    '    """ Half of each.\n    >>> halves([2])\n    [1.0]\n    """\n',
    "entry_point": "halves",
    "canonical_solution": "    return [half(x) for x in xs]\n",
    "test": "METADATA = {}\n\ndef check(candidate):\n    assert candidate([2]) == [1.0]\n"
    "    assert candidate([3]) == [half(3)]\n",
}
MBPP = {
    "task_id": 700,
    "text": "Write a function to add up a list.",
    "code": "import math\r\ndef helper(x):\r\n  return x\r\ndef sum(x):\r\n  return math.fsum(x)",
    "test_setup_code": "",
    "test_list": ["assert sum([1, 2]) == 3", "assert sum([]) == 0"],
    "challenge_test_list": ["assert math.isclose(sum([.1, .2]), .3)"],
}
SANITIZED = {key: value for key, value in MBPP.items() if key not in ("text", "test_setup_code", "challenge_test_list")}
NODES = {
    **MBPP,
    "task_id": 701,
    "code": "class Node: pass\ndef f(n):\n  return n.x",
    "test_list": ["assert f(Node()) == 1"],
}


def test_humaneval_records_are_judged_by_their_check(tmp_path: Path) -> None:
    (task,) = load_tasks_with("humaneval", write(tmp_path, HUMANEVAL), "train", {"prompt_time_limit_s": 2})
    assert "2 seconds." in task.messages[0].content
    assert HUMANEVAL["prompt"].strip() in task.messages[0].content
    assert HUMANEVAL["canonical_solution"].strip() not in task.messages[0].content
    program = HUMANEVAL["prompt"] + HUMANEVAL["canonical_solution"]
    assert judge_trusted(task, f"```python\n{program}\n```").details == {"num_tests": 2, "num_passed": 2, "accuracy": 1}
    wrong = judge_trusted(task, "```python\ndef halves(xs):\n    return [x // 2 + .0 for x in xs]\n```")
    assert wrong.feedback == "Test Case 2: Wrong Answer\nInput: halves([3])\nOutput: [1.0]\nExpected: [1.5]"


@pytest.mark.parametrize("record", [MBPP, {**SANITIZED, "prompt": MBPP["text"], "test_imports": ["import math"]}])
def test_mbpp_records_of_both_forms(tmp_path: Path, record: dict[str, Any]) -> None:
    (task,) = load_tasks_with("mbpp", write(tmp_path, record), "train", {})
    assert "such as:\n```python\nassert sum([1, 2]) == 3\n```" in task.messages[0].content
    assert "fsum" not in task.messages[0].content
    assert "assert sum([])" not in task.messages[0].content
    num_tests = 3 if "challenge_test_list" in record else 2
    right = judge_trusted(task, f"```python\n{record['code']}\n```")
    assert right.details == {"num_tests": num_tests, "num_passed": num_tests, "accuracy": 1.0}
    assert judge_trusted(task, "```python\ndef total(x):\n    return 3\n```").kind == "runtime_error"
    options = {"challenge": False, "examples": 2, "first_id": 700, "last_id": 700}
    (task,) = load_tasks_with("mbpp", write(tmp_path, record, {**record, "task_id": 701}), "train", options)
    assert len(cases_of(task)[0]["asserts"]) == 2


def test_tasks_that_no_proxy_carries_are_refused_skipped_or_open(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path, MBPP, NODES)
    with pytest.raises(
        TaskFileError, match=r"task mbpp-701: .* needs Node, .*tasks\.options\.unsupported: skip, or open"
    ):
        load_tasks_with("mbpp", path, "train", {})
    with caplog.at_level(logging.WARNING):
        assert len(load_tasks_with("mbpp", path, "train", {"unsupported": "skip"})) == 1
    assert "skipped 1 tasks whose tests no proxy carries: mbpp-701" in caplog.text
    _, task = load_tasks_with("mbpp", path, "train", {"unsupported": "open", "challenge": False})
    program = "class Node:\n    x = 1\ndef f(n):\n    return n.x"
    assert judge_trusted(task, f"```python\n{program}\n```").success


@pytest.mark.parametrize(
    ("adapter", "record", "error"),
    [
        ("humaneval", {**HUMANEVAL, "prompt": "def halves(:"}, "prompt=.*a function's head"),
        ("humaneval", {**HUMANEVAL, "test": "check = 3"}, "must define check"),
        ("humaneval", {**HUMANEVAL, "entry_point": ""}, "entry_point="),
        ("mbpp", {**MBPP, "task_id": "7"}, "task_id=.*an integer"),
        ("mbpp", {**MBPP, "test_list": []}, "test_list=.*asserts as text"),
        ("mbpp", {**MBPP, "code": "def other():\n  pass"}, "test_list=.*call a function of `code`"),
        ("mbpp", {**MBPP, "code": "def sum(x:"}, "is not Python"),
    ],
)
def test_a_bad_record_names_its_key(tmp_path: Path, adapter: str, record: dict[str, Any], error: str) -> None:
    with pytest.raises(TaskFileError, match=error) as caught:
        load_tasks_with(adapter, write(tmp_path, record), "train", {})
    assert "\n" not in str(caught.value)

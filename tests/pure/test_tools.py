"""Tools without a sandbox: strict JSON, schemas in words, calls that are run, graded answers."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from env_workers.environment import AssertProgram
from env_workers.runner.program import run_program
from env_workers.tools.execution import ToolRunner
from env_workers.tools.grading import Grade, grade
from env_workers.tools.notations import Call
from env_workers.tools.schema import complaint_about, faults_of, path_name
from env_workers.tools.strict_json import BadJson, decode_at
from env_workers.tools.toolbox import Answer, parse_toolbox
from env_workers.wording import last_tagged, printable, quote, shorten, words
from sdpo.errors import EnvironmentFault
from sdpo.types import Task

SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}, "unit": {"enum": ["c", "f"]}},
    "required": ["city"],
    "additionalProperties": False,
}
SOURCE = "LOG = []\ndef add(n):\n    LOG.append(n)\n    return sum(LOG) if n < 9 else 1 / 0"
TASK = Task(
    id="t",
    messages=(),
    environment="tools",
    payload={
        "tools": [{"name": "add", "parameters": {"properties": {"n": {"type": "integer"}}}, "source": SOURCE}],
        "answer": {"kind": "number", "value": 3},
    },
)


class HereExecutor:
    """Runs trusted programs in this process."""

    def execute(
        self, source: str, calls: Sequence[Mapping[str, Any]], time_limit_s: float, *, shared: bool = False
    ) -> Any:
        return list(run_program(source, calls, shared=shared))

    def judge_asserts(self, source: str, test: AssertProgram, time_limit_s: float) -> Any:
        raise AssertionError("not used")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "there is nothing"),
        ('{"a": 1, "a": 2}', "the key 'a' more than once"),
        ("[NaN]", "NaN is not JSON"),
        ("1e999", "a number that is too large"),
        ("[" * 40 + "]" * 40, "nested too deeply"),
        ("{a: 1}", "near '{a: 1}'"),
    ],
)
def test_json_is_read_strictly(text: str, complaint: str) -> None:
    with pytest.raises(BadJson, match=complaint):
        decode_at(text)
    assert decode_at("x  [1] rest", 1) == ([1], 6)


def test_faults_are_named_without_values() -> None:
    given = {"days": "two", "unit": "k", "hour": 1}
    assert {fault.kind: fault.text for fault in faults_of(SCHEMA, given)} == {
        "missing_argument": "the argument 'city' is missing",
        "extra_argument": "the argument 'hour' does not exist",
        "wrong_type": "the argument 'days' must be an integer, not a string",
        "wrong_value": "the argument 'unit' is not one of the values that its documentation allows",
    }
    assert faults_of(SCHEMA, {"city": "Oslo"}) == []
    assert path_name(["filters", "tags", 1]) == "the argument 'filters.tags[1]'"
    assert complaint_about(SCHEMA) is None
    assert complaint_about({"type": "array"}) == "a JSON schema of type object"
    assert "not #/other" in str(complaint_about({"properties": {"a": {"$ref": "#/other"}}}))


def test_calls_run_with_the_state_of_those_before() -> None:
    runner = ToolRunner(parse_toolbox(TASK), HereExecutor(), 1.0, 200)
    first = runner.run([Call(name="add", arguments={"n": 1}), Call(name="add", arguments={"n": 2})])
    assert [result.text for result in first] == ["1", "3"]
    calls: list[dict[str, Any]] = [{"n": 4}, {"n": "x"}, {"n": 9}]
    second = runner.run([*(Call(name="add", arguments=c) for c in calls), Call(name="sub", arguments={})])
    assert [result.failed for result in second] == [False, True, True, True]
    assert second[0].text == "7"
    assert "must be an integer, not a string" in second[1].text
    assert second[2].text == "Error: ZeroDivisionError: division by zero"
    assert second[3].text == "Error: there is no tool 'sub'; the tools are add"


def test_answers_are_graded_by_their_kind() -> None:
    def graded(answer: Answer, given: str) -> Grade:
        toolbox = replace(parse_toolbox(TASK), answer=answer)
        return grade(TASK, toolbox, given, [], ToolRunner(toolbox, HereExecutor(), 1.0, 200))

    def score(answer: Answer, given: str) -> float:
        return graded(answer, given).score

    assert score(Answer(kind="exact", text="a  b"), " a b ") == 1.0
    assert score(Answer(kind="number", number=1000, tolerance=1e-6), "1,000.0") == 1.0
    assert score(Answer(kind="number", number=3, tolerance=1e-6), "three") == 0.0
    assert score(Answer(kind="pattern", text="a+"), "aaa") == 1.0
    assert score(Answer(kind="pattern", text="a+"), "aab") == 0.0
    half = Answer(kind="check", text="def check(answer, calls):\n    return [0.5, 'nearly']")
    assert graded(half, "x").text == "nearly"
    raising = Answer(kind="check", text="def check(answer, calls):\n    return int(answer)")
    assert graded(raising, "x").error
    with pytest.raises(EnvironmentFault, match="check gave 7"):
        graded(raising, "7")


def test_texts_of_a_model_are_taken_apart() -> None:
    assert last_tagged("<answer>1</answer><answer> 2", "answer") == "2"
    assert last_tagged("none", "answer") is None
    assert shorten("x" * 30, 11) == "xxx ... xxx"
    assert quote("a\n b\x00") == "'a b?'"
    assert printable("\ud800\t") == "?\t"
    assert (words(["a"]), words(["a", "b", "c"], "or")) == ("a", "a, b or c")

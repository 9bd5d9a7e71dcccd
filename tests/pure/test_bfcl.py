"""The adapter `bfcl`: records in the form of the leaderboard become tasks, and their answers are judged."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from benchmarks.bfcl_changes import alternatives, changes, gold
from env_workers.adapters import load_tasks_with
from env_workers.environment import Reply, check_task
from env_workers.tools.environments import ToolMatchingEnvironment
from sdpo.errors import TaskFileError
from sdpo.types import Task, Verdict

BOOK = {
    "name": "hotel.book",
    "description": "Books a room.",
    "parameters": {
        "type": "dict",
        "required": ["city", "nights"],
        "properties": {
            "city": {"type": "string", "description": "Where."},
            "nights": {"type": "integer"},
            "budget": {"type": "float"},
            "tags": {"type": "array", "items": {"type": "string"}},
            "guest": {"type": "dict", "properties": {"name": {"type": "string"}, "age": {"type": "integer"}}},
            "beds": {"type": "array", "items": {"type": "dict", "properties": {"size": {"type": "string"}}}},
            "pets": {"type": "boolean", "optional": True},
        },
    },
}
ANSWER: dict[str, Any] = {
    "city": ["New York", "NYC"],
    "nights": [2],
    "budget": [300, ""],
    "tags": [["quiet", "sea view"], ["quiet"]],
    "guest": [{"name": ["Ann Lee"], "age": [41, ""]}],
    "beds": [[{"size": ["king", "queen"]}, {"size": ["single"]}]],
    "pets": ["", False],
}
RIGHT: dict[str, Any] = {
    "city": "new york",
    "nights": 2,
    "budget": 300.0,
    "tags": ["Quiet", "sea-view"],
    "guest": {"name": "Ann Lee", "age": 41},
    "beds": [{"size": "queen"}, {"size": "single"}],
}


def record(name: str = "simple_python_0", **fields: Any) -> dict[str, Any]:
    return {"id": name, "question": [[{"role": "user", "content": "Book it."}]], "function": [BOOK], **fields}


def tasks_of(
    folder: Path, records: list[dict[str, Any]], truths: list[Any] | None = None, **options: Any
) -> list[Task]:
    file = folder / "BFCL_v4_test.json"
    file.write_text("\n".join(json.dumps(item) for item in records))
    if truths is not None:
        (folder / "possible_answer").mkdir(exist_ok=True)
        lines = [json.dumps({"id": r["id"], "ground_truth": a}) for r, a in zip(records, truths, strict=True)]
        (folder / "possible_answer" / file.name).write_text("\n".join(lines))
    return load_tasks_with("bfcl", str(file), "train", options)


def judge(task: Task, *calls: dict[str, Any]) -> Verdict:
    text = "\n".join(f"<tool_call>{json.dumps(call)}</tool_call>" for call in calls) or "No tool helps."
    return ToolMatchingEnvironment(None).judge(task, Reply(text=text))  # type: ignore[arg-type]


def book(**changed: Any) -> dict[str, Any]:
    arguments = {key: value for key, value in {**RIGHT, **changed}.items() if value != "left out"}
    return {"name": "hotel.book", "arguments": arguments}


@pytest.fixture
def task(tmp_path: Path) -> Task:
    (task,) = tasks_of(tmp_path, [record()], [[{"hotel.book": ANSWER}]])
    check_task(task)
    return task


def test_the_model_sees_the_tools_as_json_schemas(task: Task) -> None:
    system, user = task.messages
    assert (user.content, task.id, task.environment) == ("Book it.", "simple_python_0", "tool_matching")
    assert '"budget": {"type": "number"}' in system.content
    assert "dict" not in system.content
    assert "optional" not in system.content


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"city": "N.Y.C."},
        {"budget": 300},
        {"budget": "left out"},
        {"tags": ["quiet"]},
        {"guest": {"name": "ann lee"}},
        {"beds": [{"size": "king"}, {"size": "single"}]},
        {"pets": False},
    ],
)
def test_every_accepted_value_passes(task: Task, changed: dict[str, Any]) -> None:
    assert judge(task, book(**changed)).success


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"city": "Boston"}, "the argument 'city' has a wrong value"),
        ({"nights": 2.0}, "the argument 'nights' is of the wrong type"),
        ({"nights": True}, "the argument 'nights' must be an integer, not a boolean"),
        ({"nights": "left out"}, "the argument 'nights' is missing"),
        ({"tags": ["sea view", "quiet"]}, "the argument 'tags' has a wrong value"),
        ({"guest": {"age": 41}}, "the argument 'guest' lacks a key"),
        ({"guest": {"name": "Ann Lee", "age": 40}}, "the argument 'guest.age' has a wrong value"),
        ({"guest": {"name": "Ann Lee", "vip": True}}, "the argument 'guest.vip' should not be given here"),
        ({"beds": [{"size": "single"}, {"size": "single"}]}, "the argument 'beds[0].size' has a wrong value"),
        ({"beds": [{"size": "king"}]}, "the argument 'beds' has too few items"),
        ({"pets": True}, "the argument 'pets' has a wrong value"),
        ({"view": "sea"}, "the argument 'view' does not exist"),
    ],
)
def test_one_change_is_wrong_and_the_feedback_names_the_place(task: Task, changed: dict[str, Any], told: str) -> None:
    verdict = judge(task, book(**changed))
    assert verdict.feedback == f"Wrong Answer\nCall 1 ('hotel.book'): {told}."
    assert not any(secret in verdict.feedback for secret in ("New York", "NYC", "queen", "41"))


def test_answers_that_the_benchmark_makes_are_judged_as_they_should_be(task: Task) -> None:
    judged = {**record(), "ground_truth": [{"hotel.book": ANSWER}]}
    assert judge(task, *gold(judged)).success
    right, wrong = list(alternatives(judged)), list(changes(judged))
    assert len(right) > 10
    assert all(judge(task, *calls).success for calls in right)
    assert len(wrong) > 50
    assert not any(judge(task, *calls).success for calls in wrong)


def test_several_calls_are_matched_in_any_order_and_no_call_may_be_right(tmp_path: Path) -> None:
    short = {"city": ["Oslo"], "nights": [1]}
    records = [record("parallel_0"), record("irrelevance_0")]
    both, none = tasks_of(tmp_path, records, [[{"hotel.book": ANSWER}, {"hotel.book": short}], []])
    other = {"name": "hotel.book", "arguments": {"city": "oslo", "nights": 1}}
    assert judge(both, other, book()).success
    assert not judge(both, book()).success
    assert judge(none).success
    assert not judge(none, other).success


def test_records_of_irrelevance_need_no_answer_file(tmp_path: Path) -> None:
    (task,) = tasks_of(tmp_path, [record("live_irrelevance_3-0-1")])
    assert task.payload["expected"] == []
    with pytest.raises(
        TaskFileError, match=r"simple_python_0: no ground_truth for this id; allowed: one in .*possible"
    ):
        tasks_of(tmp_path, [record()])


UNSUPPORTED: list[tuple[dict[str, Any], Any, str]] = [
    (record("live_relevance_0"), None, "any call is right, and none is given"),
    (record(question=[[{"role": "user", "content": "a"}]] * 2), [], "its question has 2 turns, not one"),
    (record(function=[]), [], "it has no tools under function"),
    (record(), [{"hotel.find": {}}], "its answer calls hotel.find, which is none of its tools"),
    (record(), [{"hotel.book": {"city": ["x"]}}], "lacks the required argument nights"),
    (record(), [{"hotel.book": {"city": ["x"], "nights": [""]}}], "accepts no value of the argument nights"),
    (record(), [{"hotel.book": {"city": ["x"], "nights": [1], "view": ["sea"]}}], "no value of the argument view"),
    (record(), [{"hotel.book": {"city": "x", "nights": [1]}}], "no list of accepted values for the argument city"),
    (record(function=[{"name": "f", "parameters": {"type": "enum"}}]), [], "the unknown type enum"),
]


@pytest.mark.parametrize(("refused", "answer", "why"), UNSUPPORTED)
def test_what_cannot_be_expressed_is_refused_or_skipped(
    refused: dict[str, Any], answer: Any, why: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    records = [refused, record("irrelevance_9")]
    answers = None if answer is None else [answer, []]
    with pytest.raises(TaskFileError, match=f"line 1: {refused['id']}: .*{why}.*tasks.options.unsupported=skip"):
        tasks_of(tmp_path, records, answers)
    with caplog.at_level(logging.WARNING):
        assert [task.id for task in tasks_of(tmp_path, records, answers, unsupported="skip")] == ["irrelevance_9"]
    assert f"skipped 1 records: {refused['id']}" in caplog.text


def test_the_option_answers_names_the_answer_file(tmp_path: Path) -> None:
    file = tmp_path / "elsewhere.jsonl"
    file.write_text(json.dumps({"id": "simple_python_0", "ground_truth": [{"hotel.book": ANSWER}]}))
    (task,) = tasks_of(tmp_path, [record()], answers=str(file))
    assert judge(task, book()).success
    file.write_text(json.dumps({"id": "simple_python_0", "ground_truth": [{"a": {}, "b": {}}]}))
    with pytest.raises(TaskFileError, match="ground_truth="):
        tasks_of(tmp_path, [record()], answers=str(file))
    with pytest.raises(TaskFileError, match="no such file"):
        tasks_of(tmp_path, [record()], answers=str(tmp_path / "none.jsonl"))

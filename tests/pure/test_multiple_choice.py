"""Multiple choice: the letter after the last <answer>, and words that do not tell which is right."""

import json
from pathlib import Path

import pytest

from env_workers.adapters.sciknoweval import sciknoweval
from env_workers.environment import Reply
from env_workers.multiple_choice import MultipleChoiceEnvironment
from sdpo.errors import TaskFileError
from sdpo.types import Task, Verdict

RECORD = {
    "idx": 7,
    "kind": "mcq",
    "prompt": "Which one?\nA: not an option\nThe options:\n\nA: red\nB: blue\nC: green\nPlease reason step by step.",
    "system": "\nAnswer with <answer>.\n",
    "answer": "B",
}


def judge(text: str, truncated: bool = False, **payload: object) -> Verdict:
    task = Task(id="t", messages=(), environment="multiple_choice", payload={"answer": "B", **payload})
    MultipleChoiceEnvironment.check(task)
    return MultipleChoiceEnvironment(None).judge(task, Reply(text=text, truncated=truncated))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("<reasoning>\nA?\n</reasoning>\n<answer>\nB\n</answer>", "passed"),
        ("<answer>A</answer> no: <answer>B", "passed"),
        ("<think><answer>A</answer></think><answer>B</answer>", "passed"),
        ("<answer>B</answer> or rather <answer>A</answer>", "wrong_answer"),
        ("<answer>b</answer>", "wrong_format"),
        ("<answer>B: blue</answer>", "wrong_format"),
        ("<answer>E</answer>", "wrong_format"),
        ("<answer></answer>", "wrong_format"),
        ("B", "wrong_format"),
        ("<think><answer>B</answer>", "wrong_format"),
    ],
)
def test_kinds(text: str, kind: str) -> None:
    verdict = judge(text)
    assert (verdict.kind, verdict.success, verdict.reward) == (kind, kind == "passed", float(kind == "passed"))
    assert bool(verdict.feedback) is (kind != "passed")


def test_feedback_says_what_is_wrong_and_not_what_is_right() -> None:
    assert judge("<answer>A</answer>").feedback == "Wrong Answer\nA is not the right option."
    told = judge("<answer>Q \ud800 both</answer>").feedback
    assert told == (
        "Wrong Format\nThe answer 'Q ? both' is not one of the letters. "
        "End with <answer>, one letter alone (A, B, C or D), </answer>."
    )
    assert judge("Well, maybe", truncated=True).kind == "truncated"


def test_records(tmp_path: Path) -> None:
    path = tmp_path / "train.json"
    path.write_text(json.dumps(RECORD) + "\n")
    (task,) = sciknoweval(str(path), "train", {})
    assert [(m.role, m.content) for m in task.messages] == [("system", RECORD["system"]), ("user", RECORD["prompt"])]
    assert task.payload == {"answer": "B", "choices": ["A", "B", "C"]}
    path.write_text(json.dumps({**RECORD, "answer": "D"}))
    with pytest.raises(TaskFileError, match="answer=D: allowed: A, B, C"):
        list(sciknoweval(str(path), "train", {}))


def test_a_payload_whose_answer_is_no_choice_is_refused() -> None:
    with pytest.raises(TaskFileError, match=r"payload.answer is B; allowed: X or Y"):
        judge("", choices=["X", "Y"])

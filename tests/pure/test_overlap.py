"""Evaluation tasks that are training tasks as well are found and warned of."""

import json
from pathlib import Path
from typing import Any

import pytest

from env_workers.adapters import load_tasks_with
from orchestrator.inputs.inputs import Inputs
from orchestrator.inputs.overlap import find_overlap
from sdpo.config import RunConfig
from sdpo.types import Message, Task

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "examples/tinycoder/model"
HELDOUT = ROOT / "examples/tinycoder/tasks/heldout.jsonl"


def task(name: str, words: str = "?") -> Task:
    return Task(id=name, messages=(Message(role="user", content=words),), environment="code", payload={})


def test_overlap_is_by_content() -> None:
    train = [task("a", "Add  one\nto x"), task("b", "Negate"), task("c", "Halve")]
    evaluated = [task("x", "add one to X "), task("b", "Square"), task("c", "Halve"), task("y", "Add two to x")]
    found = find_overlap(train, evaluated)
    assert (found.num_tasks, found.num_overlapping) == (4, 2)
    assert found.examples == [("x", "a"), ("c", "c")]
    assert found.warning is not None
    assert "2 of 4 evaluation tasks ask the same question as a training task" in found.warning
    assert "x (in training a)" in found.warning
    assert find_overlap(train, evaluated[3:]).warning is None


def test_questions_in_the_system_message_are_told_apart() -> None:
    def puzzle(name: str, words: str) -> Task:
        messages = (Message(role="system", content=words), Message(role="user", content="Solve it."))
        return Task(id=name, messages=messages, environment="code", payload={})

    train = [puzzle("a", "1 + 1"), puzzle("b", "2 + 2")]
    assert find_overlap(train, [puzzle("a", "3 + 3")]).num_overlapping == 0
    assert find_overlap(train, [puzzle("x", "2 + 2"), puzzle("y", "4")]).examples == [("x", "b")]
    assert find_overlap(train[:1], [puzzle("x", "You are helpful.")]).num_overlapping == 1


RECORDS: dict[str, dict[str, Any]] = {
    "math": {"problem": "What is {0} + 1?", "answer": "{0}"},
    "sciknoweval": {"system": "Choose.", "prompt": "Which is {0}?\nA: one\nB: two", "answer": "A"},
    "toolalpaca": {
        "prompt": 'Use {0}.\nfind: Finds.\nParameters: {{"q": "Required. string."}}',
        "answer": json.dumps([{"Action": "find", "Action_Input": "{}"}]),
    },
    "function_calling": {"question": "Find {0}", "tools": [{"name": "find"}], "calls": []},
    "records": {"q": "Say {0}"},
}


@pytest.mark.parametrize("adapter", RECORDS)
def test_numbered_tasks_of_two_files_have_ids_of_their_own(adapter: str, tmp_path: Path) -> None:
    options = {"environment": "x", "prompt": "{q}"} if adapter == "records" else {}
    sets = {}
    for purpose in ("train", "heldout"):
        record = {
            k: v.replace("{0}", str(len(purpose))).replace("{{", "{").replace("}}", "}") if isinstance(v, str) else v
            for k, v in RECORDS[adapter].items()
        }
        file = tmp_path / f"{purpose}.jsonl"
        file.write_text(json.dumps(record) + "\n")
        sets[purpose] = load_tasks_with(adapter, str(file), purpose, options)  # type: ignore[arg-type]
    assert not {t.id for t in sets["train"]} & {t.id for t in sets["heldout"]}
    assert find_overlap(sets["train"], sets["heldout"]).warning is None


def test_a_run_warns_of_held_out_tasks_that_are_trained_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "heldout.jsonl"
    lines = [json.loads(line) for line in HELDOUT.read_text().splitlines()[:3]]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    shouted = [line | {"id": "train-" + line["id"], "messages": _loud(line)} for line in lines[:2]]
    train = tmp_path / "train.jsonl"
    train.write_text("".join(json.dumps(line) + "\n" for line in shouted))
    tasks = {"train": str(train), "heldout": str(file)}
    config: dict[str, Any] = {"model": {"path": str(MODEL)}, "tasks": tasks, "batch": {"tasks": 2}}
    Inputs.load(RunConfig.model_validate(config))
    assert "warning: 2 of 3 evaluation tasks ask the same question as a training task" in capsys.readouterr().err
    train.write_text("\n".join(HELDOUT.read_text().splitlines()[3:5]))
    Inputs.load(RunConfig.model_validate(config))
    assert capsys.readouterr().err == ""


def _loud(line: dict[str, Any]) -> list[dict[str, str]]:
    return [{"role": m["role"], "content": m["content"].upper() + "\n"} for m in line["messages"]]

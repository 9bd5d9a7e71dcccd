"""docs/rewards.md: its environment runs, and the preview of a run shows what the page says."""

import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator.api import configure, judge_many
from orchestrator.cli import main
from sdpo.types import Message, Task
from tests.fixtures.docs_blocks import DOCS
from tests.fixtures.run import ROOT


@pytest.fixture
def page(tmp_path: Path) -> Path:
    """A folder with the page's environment, a task and a run file."""
    text = (DOCS / "rewards.md").read_text()
    code = text.split("```python packing.py\n")[1].split("```")[0]
    (tmp_path / "packing.py").write_text(code)
    message = {"role": "user", "content": "Pack the circles."}
    payload = {"most": 2.0}
    task = {"id": "pack", "messages": [message], "environment": "packing:Packing", "payload": payload}
    (tmp_path / "tasks.jsonl").write_text(json.dumps(task) + "\n")
    return tmp_path


def shown(page: Path, capfd: pytest.CaptureFixture[str], answer: str, demo: str) -> dict[str, Any]:
    (page / "answer.txt").write_text(answer)
    (page / "demo.txt").write_text(demo)
    sets = [f"env.code=[{page / 'packing.py'}]", f"tasks.train={page / 'tasks.jsonl'}", "tasks.heldout=null"]
    sets += [f"model.path={ROOT / 'examples/tinycoder/model'}"]
    answers = ["--answer", str(page / "answer.txt"), "--demo", str(page / "demo.txt")]
    assert main(["preview", str(ROOT / "examples/tinycoder.yaml"), "--json", *answers, *sets]) == 0
    found: dict[str, Any] = json.loads(capfd.readouterr().out)
    return found


def test_better_valid_answers_are_demonstrations(page: Path, capfd: pytest.CaptureFixture[str]) -> None:
    better = shown(page, capfd, "0.5 0.4", "0.5 0.6")
    assert (better["attempt"]["verdict"]["reward"], better["hindsight"]["demo_from"], better["notes"]) == (0.9, 1, [])
    worse = shown(page, capfd, "0.5 0.6", "0.5 0.4")
    assert worse["hindsight"]["demo_from"] is None
    assert "Feedback from your successful earlier attempt:\nValid: the sum is 1.1." in worse["hindsight"]["text"]
    assert "its reward 0.9 is lower than the attempt's, 1.1" in worse["notes"][0]
    invalid = shown(page, capfd, "0.5", "3")
    assert "its verdict says success=false" in invalid["notes"][0]
    assert shown(page, capfd, "3", "0.5")["hindsight"]["demo_from"] == 1


UNSET = """
from env_workers.environment import SingleTurnEnvironment
from sdpo.types import Verdict

class Unset(SingleTurnEnvironment):
    def judge(self, task, reply):
        return Verdict(reward=float(reply.text), kind="scored", feedback="a word")
"""


@pytest.mark.parametrize(("threshold", "successes"), [(0.5, [False, True, True]), (0.75, [False, False, True])])
def test_success_that_is_left_out_follows_the_threshold_for_judged_answers(
    tmp_path: Path, threshold: float, successes: list[bool]
) -> None:
    (tmp_path / "my_unset.py").write_text(UNSET)
    message = Message(role="user", content="Say a number.")
    task = Task(id="t", messages=(message,), environment="my_unset:Unset", payload={})
    config = configure(
        ROOT / "examples/tinycoder.yaml",
        {"env.code": [str(tmp_path / "my_unset.py")], "env.feedback": "outcome"},
        hindsight__success_threshold=threshold,
        model__path=str(ROOT / "examples/tinycoder/model"),
    )
    verdicts = judge_many(config, [(task, text) for text in ("0.25", "0.5", "1")])
    assert [verdict.success for verdict in verdicts] == successes
    assert [verdict.feedback == "" for verdict in verdicts] == successes, "a success has no outcome line"

"""Many answers judged at once, by `sdpo preview --answers` and from Python: the same verdicts as one by one."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest

from orchestrator.api import configure, judge, judge_many
from orchestrator.cli import main
from sdpo.errors import EnvironmentFault, TaskFileError
from sdpo.taskfile import load_tasks
from sdpo.types import Message, Task
from tests.fixtures.run import ROOT, half_in_turns

RUN_FILE = str(ROOT / "examples/tinycoder.yaml")
WRONG, RIGHT = "```python\ndef f(x):\n    return x\n```", "```python\ndef f(x):\n    return -x\n```"
SETS = ("rollout.sampling.max_response_tokens=500", f"model.path={ROOT / 'examples/tinycoder/model'}")
OWN = """
from env_workers.environment import SingleTurnEnvironment
from sdpo.types import Verdict

class Own(SingleTurnEnvironment):
    def judge(self, task, reply):
        return Verdict(reward=1.0 / len(reply.text), success=True, kind="long")
"""


@pytest.fixture
def overrides(tmp_path: Path) -> list[str]:
    """A task file of which every second task is one in turns."""
    tasks = half_in_turns(tmp_path / "tasks.jsonl")
    return [f"tasks.train={tasks}", f"tasks.heldout={tasks}", *SETS]


def run_on(tmp_path: Path, records: list[Any], *arguments: str) -> int:
    file = tmp_path / "answers.jsonl"
    file.write_text("".join(f"{json.dumps(record)}\n" for record in records))
    return main(["preview", RUN_FILE, "--answers", str(file), *arguments])


def test_verdicts_are_those_of_single_previews(
    tmp_path: Path, overrides: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    tasks = load_tasks(overrides[0].partition("=")[2])
    scripts: list[Any] = [RIGHT, [WRONG], [WRONG, RIGHT], "no program", [RIGHT, RIGHT]]
    records = [{"id": t.id, "answer": s, "model": "any"} for t in tasks[:4] for s in scripts]
    assert run_on(tmp_path, records, *overrides, "env.sandboxes_per_worker=4") == 0
    said = capfd.readouterr()
    verdicts = [json.loads(line) for line in said.out.splitlines()]
    assert [v["id"] for v in verdicts] == [r["id"] for r in records]
    assert len({v["kind"] for v in verdicts}) > 1
    assert f"{sum(v['success'] for v in verdicts)} of 20 answers succeeded, mean reward " in said.err
    for number in (2, 7, 9):
        answers = []
        script = records[number]["answer"]
        for turn, text in enumerate([script] if isinstance(script, str) else script):
            (tmp_path / f"{turn}.txt").write_text(text)
            answers += ["--answer", str(tmp_path / f"{turn}.txt")]
        assert main(["preview", RUN_FILE, "--json", "--task", str(records[number]["id"]), *answers, *overrides]) == 0
        single = json.loads(capfd.readouterr().out)["attempt"]
        assert {k: single["verdict"][k] for k in ("reward", "success", "kind", "feedback")} == {
            k: verdicts[number][k] for k in ("reward", "success", "kind", "feedback")
        }
        assert (len(single["turns"]), single["notes"]) == (verdicts[number]["turns"], verdicts[number]["notes"])


@pytest.mark.parametrize(
    ("record", "line"),
    [
        ({"id": "train-000", "answer": ""}, "line 2: id=train-000: no such task among .* nearest: train-"),
        ({"id": 3, "answer": ""}, "line 2: id=3; allowed: the id of a task"),
        ({"id": "train-0000"}, "line 2: answer=none; allowed: a text, or a list"),
        ({"id": "train-0000", "answer": []}, "line 2: answer=.*; allowed: a text, or a list"),
        ({"id": "train-0000", "answer": ["a", 1]}, "line 2: answer=.*; allowed: a text, or a list"),
        ({"id": "train-0000", "answer": ["a"] * 9}, "line 2: answer has 9 turns; allowed: at most env.max_turns=8"),
        (["train-0000", "a"], "line 2: .*: allowed: an object"),
    ],
)
def test_bad_records_are_one_line_with_file_and_line(
    tmp_path: Path, overrides: list[str], capfd: pytest.CaptureFixture[str], record: Any, line: str
) -> None:
    assert run_on(tmp_path, [{"id": "train-0000", "answer": RIGHT}, record], *overrides) == 2
    said = capfd.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert re.search(f"answers.jsonl, {line}", said.err), said.err


def test_options_for_one_answer_are_refused(
    tmp_path: Path, overrides: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    assert run_on(tmp_path, [{"id": "train-0000", "answer": ""}], "--task", "train-0000", *overrides) == 2
    assert capfd.readouterr().err == "sdpo: --task: allowed: without --answers, whose records name task and answer\n"


def test_a_broken_sandbox_is_counted_and_is_no_verdict(
    tmp_path: Path, overrides: list[str], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from env_workers.sandbox.pool import SandboxPool
    from sdpo.errors import InfrastructureError

    def broken(*_: Any, **__: Any) -> None:
        raise InfrastructureError("the sandbox is gone")

    monkeypatch.setattr(SandboxPool, "execute", broken)
    records = [{"id": "train-0000", "answer": text} for text in (RIGHT, "no program")]
    assert run_on(tmp_path, records, "--json", *overrides) == 1
    found = json.loads(capfd.readouterr().out)
    assert found["verdicts"][0]["infrastructure_error"] == "the sandbox is gone"
    assert found["verdicts"][0]["reward"] is None
    assert found["summary"] == {"answers": 2, "lost": 1, "successes": 0, "mean_reward": 0.0, "kinds": {"no_program": 1}}


def test_judge_from_python_also_where_an_event_loop_runs(overrides: list[str]) -> None:
    config = configure(RUN_FILE, dict(item.split("=") for item in overrides[:2]))
    first, second = load_tasks(overrides[0].partition("=")[2])[:2]

    async def notebook() -> list[float | None]:
        pairs: list[tuple[str | Task, str | list[str]]] = [(first.id, RIGHT), (second, [WRONG]), (first, WRONG)]
        return [verdict.reward for verdict in judge_many(config, pairs)]

    rewards = asyncio.run(notebook())
    assert rewards == [
        judge(config, task, text).reward for task, text in ((first, RIGHT), (second, WRONG), (first, WRONG))
    ]
    with pytest.raises(TaskFileError, match="answer 1: answer=3; allowed: a text"):
        judge(config, first, 3)  # type: ignore[arg-type]
    assert judge_many(config, []) == []


def test_a_judge_that_raises_names_the_answer(tmp_path: Path) -> None:
    (tmp_path / "own_judge.py").write_text(OWN)
    config = configure(RUN_FILE, {"env.code": [str(tmp_path / "own_judge.py")]})
    task = Task(id="a", messages=(Message(role="user", content="?"),), environment="own_judge:Own", payload={})
    assert judge(config, task, "four").reward == 0.25
    with pytest.raises(EnvironmentFault, match=r"^answer 2: .*ZeroDivisionError.*own_judge.py, line 7"):
        judge_many(config, [(task, "a"), (task, "")])

"""`sdpo preview`: a task and answers of a person's through the run's own parts, without a model."""

import io
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli import main
from orchestrator.inputs.inputs import load_tokenizer
from sdpo.chat import render_prompt
from sdpo.config.load import load_run_config
from sdpo.reprompt import Attempt, Routing, build_hindsight
from sdpo.taskfile import load_tasks
from tests.fixtures.run import ROOT, half_in_turns

RUN_FILE, MODEL = str(ROOT / "examples/tinycoder.yaml"), str(ROOT / "examples/tinycoder/model")
WRONG, RIGHT = "```python\ndef f(x):\n    return x\n```", "```python\ndef f(x):\n    return -x\n```"
RIDDLES = """
from env_workers.environment import SingleTurnEnvironment
from sdpo.types import Verdict

class Riddle(SingleTurnEnvironment):
    def judge(self, task, reply):
        if reply.text == task.payload["answer"]:
            return Verdict(reward=1.0, success=True, kind="right")
        return Verdict(reward=0.0, success=False, kind="wrong", feedback=f"not {reply.text}" * 40)
"""


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """Task file (every second task in turns) and answers, by name."""
    (tmp_path / "wrong.txt").write_text(WRONG + "\n")
    (tmp_path / "right.txt").write_text(RIGHT)
    tasks = half_in_turns(tmp_path / "tasks.jsonl")
    return {name: str(tmp_path / name) for name in ("wrong.txt", "right.txt")} | {"tasks": str(tasks)}


def previewed(
    capfd: pytest.CaptureFixture[str], files: dict[str, str], *arguments: str, exit_code: int = 0
) -> dict[str, Any]:
    sets = [f"tasks.train={files['tasks']}", f"tasks.heldout={files['tasks']}", f"model.path={MODEL}"]
    assert main(["preview", RUN_FILE, "--json", *arguments, *sets]) == exit_code
    found: dict[str, Any] = json.loads(capfd.readouterr().out)
    return found


def test_prompt_verdict_and_hindsight_are_the_runs_own(
    files: dict[str, str], capfd: pytest.CaptureFixture[str]
) -> None:
    task = next(t for t in load_tasks(files["tasks"]) if t.environment == "code")
    found = previewed(capfd, files, "--task", task.id, "--answer", files["wrong.txt"])
    config, tokenizer = load_run_config(RUN_FILE), load_tokenizer(MODEL)
    prompt = render_prompt(tokenizer, task.messages)
    assert found["prompt"] == {"text": tokenizer.decode(prompt.tolist()), "length": len(prompt)}
    assert found["tokens_left"] == config.max_prompt_tokens - len(prompt)
    (turn,), verdict = found["attempt"]["turns"], found["attempt"]["verdict"]
    assert turn == {"answer": {"text": WRONG, "length": len(tokenizer.encode(WRONG)) + 1}, "observation": None}
    assert verdict["success"] is False
    assert verdict["feedback"]
    attempt = Attempt(sample_index=0, text=WRONG, reward=0.0, success=False, feedback=verdict["feedback"])
    routing = Routing(demo_from=None, use_feedback=True)
    want = build_hindsight(task, [attempt], 0, routing, tokenizer, config.hindsight).token_ids
    assert found["hindsight"]["text"] == tokenizer.decode(want.tolist())
    assert found["hindsight"]["length"] == len(want)
    assert found["notes"] == []


def test_a_second_answer_is_the_demonstration_if_it_succeeds(
    files: dict[str, str], capfd: pytest.CaptureFixture[str]
) -> None:
    task = next(t for t in load_tasks(files["tasks"]) if t.environment == "code")
    table = {test["inputs"][0]: test["expected"] for test in task.payload["tests"]}
    solution = f"```python\ndef f(x):\n    return {table}[x]\n```"
    Path(files["right.txt"]).write_text(solution)
    arguments = ("--answer", files["wrong.txt"], "--task", task.id, "--demo")
    found = previewed(capfd, files, *arguments, files["right.txt"])
    assert found["hindsight"]["demo_from"] == 1
    assert f"Correct solution:\n{solution}" in found["hindsight"]["text"]
    found = previewed(capfd, files, *arguments, files["wrong.txt"])
    assert found["hindsight"]["demo_from"] is None
    assert "the demonstration is not shown: its verdict says success=false (reward 0)" in found["notes"][0]


def test_turns_go_on_until_the_verdict_and_no_further(files: dict[str, str], capfd: pytest.CaptureFixture[str]) -> None:
    answer, room = ("--answer", files["wrong.txt"]), "rollout.sampling.max_response_tokens=500"
    found = previewed(capfd, files, *answer, room)["attempt"]
    assert "The program is not right yet" in found["turns"][0]["observation"][0]["content"]
    assert found["notes"] == [
        "the environment waits for turn 2 of at most 8 (another --answer); judged as if the tokens had ended here"
    ]
    assert found["verdict"]["details"]["num_tries"] == 1
    found = previewed(capfd, files, *answer, *answer, *answer, room)["attempt"]
    assert [turn["observation"] is None for turn in found["turns"]] == [False, True]
    assert found["transcript"].count(WRONG) == 2
    assert found["notes"] == ["the attempt was over after turn 2: 1 more given, not used"]
    (cut,) = previewed(capfd, files, *answer)["attempt"]["notes"][:1]
    assert re.fullmatch(r"turn 1: the model reads \d+ of \d+ characters of the observation", cut)
    found = previewed(capfd, files, *answer, "env.max_turns=1")["attempt"]
    assert found["notes"] == ["env.max_turns=1 reached: judged as it is"]


SCORES = """
from env_workers.environment import SingleTurnEnvironment
from sdpo.types import Verdict

class Scores(SingleTurnEnvironment):
    def judge(self, task, reply):
        reward, *success = reply.text.split()
        said = {"success": success[0] == "valid"} if success else {}
        return Verdict(reward=float(reward), kind="scored", feedback=f"The sum is {reward}.", **said)
"""


@pytest.mark.parametrize(
    ("answer", "demo", "changes", "demo_from", "note"),
    [
        ("0.5 invalid", "0.8 invalid", "", None, "its verdict says success=false (reward 0.8)"),
        ("0.5 invalid", "0.8 invalid", "hindsight.success_threshold=-1", None, "its verdict says success=false"),
        ("0.2 invalid", "0.4 valid", "", 1, ""),
        ("1.1 valid", "1.09 valid", "", None, "its reward 1.09 is lower than the attempt's, 1.1"),
        ("1.09 valid", "1.1 valid", "", 1, ""),
        ("1.1 valid", "1.09 valid", "hindsight.exclude_own_success=false", 0, "the attempt itself is, with"),
        ("0.2", "0.5", "", 1, ""),
        ("0.2", "0.5", "hindsight.success_threshold=0.6", None, "its verdict says success=false"),
        ("0.2", "0.5 valid", "hindsight.include_demo=false", None, "hindsight.include_demo=false"),
    ],
)
def test_demonstrations_by_success_and_reward(
    files: dict[str, str],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    answer: str,
    demo: str,
    changes: str,
    demo_from: int | None,
    note: str,
) -> None:
    (tmp_path / "my_scores.py").write_text(SCORES)
    message = {"role": "user", "content": "Pack the circles."}
    task = {"id": "pack", "messages": [message], "environment": "my_scores:Scores", "payload": {}}
    tasks, own, other = tmp_path / "pack.jsonl", tmp_path / "own.txt", tmp_path / "other.txt"
    tasks.write_text(json.dumps(task) + "\n")
    own.write_text(answer)
    other.write_text(demo)
    sets = [f"env.code=[{tmp_path / 'my_scores.py'}]", *([changes] if changes else [])]
    found = previewed(capfd, {**files, "tasks": str(tasks)}, "--answer", str(own), "--demo", str(other), *sets)
    assert found["hindsight"]["demo_from"] == demo_from
    assert note in found["notes"][0] if note else found["notes"] == [], found["notes"]
    succeeded = found["attempt"]["verdict"]["success"]
    assert succeeded is (answer.endswith(" valid"))
    if demo_from is None:
        heading = f"Feedback from your {'' if succeeded else 'un'}successful earlier attempt:"
        assert f"{heading}\nThe sum is" in found["hindsight"]["text"]


def riddles(folder: Path) -> tuple[str, ...]:
    """The overrides of a run with an environment of one's own, and a model folder without a tokenizer."""
    (folder / "my_riddles.py").write_text(RIDDLES)
    task = {
        "id": "echo",
        "messages": [{"role": "user", "content": "Who answers?"}],
        "environment": "my_riddles:Riddle",
        "payload": {"answer": "echo"},
    }
    (folder / "riddles.jsonl").write_text(json.dumps(task) + "\n")
    (folder / "model").mkdir()
    code = f"env.code=[{folder / 'my_riddles.py'}]"
    return (code, f"tasks.train={folder / 'riddles.jsonl'}", "tasks.heldout=null", f"model.path={folder / 'model'}")


def test_own_environment_from_stdin_without_a_tokenizer(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides = riddles(tmp_path)
    arguments = ["preview", RUN_FILE, "--answer", "-", "--task", "echo", *overrides]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"the moon\n")))
    assert main(arguments) == 2
    assert re.search(r"^sdpo: model.path=.*--plain previews without a tokenizer\n$", capfd.readouterr().err)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"the moon\n")))
    assert main([*arguments, "--plain"]) == 0
    said = capfd.readouterr().out
    assert "== prompt: 33 characters ==" in said
    assert "[user]\nWho answers?\n\n[assistant]\n" in said
    assert "Feedback from your unsuccessful earlier attempt:\nnot the moon" in said
    assert "cut: nothing" in said


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--task", "train-00000"), r"--task=train-00000: no such task among 8 .* nearest: train-0000, "),
        (("--answer", "nowhere.txt"), "--answer nowhere.txt: cannot be read: No such file"),
        (("--answer", "wrong.txt", "--answer", "wrong.txt", "env.max_turns=1"), "at most env.max_turns=1, once a turn"),
        (("--demo", "wrong.txt"), "--demo: allowed: with --answer"),
        (("--answer", "-", "--demo", "-"), "stdin can be read once"),
    ],
)
def test_bad_input_is_one_line(
    files: dict[str, str], capfd: pytest.CaptureFixture[str], arguments: tuple[str, ...], told: str
) -> None:
    sets = (f"tasks.train={files['tasks']}", f"tasks.heldout={files['tasks']}", f"model.path={MODEL}")
    assert main(["preview", RUN_FILE, *(files.get(a, a) for a in arguments), *sets]) == 2
    error = capfd.readouterr().err
    assert error.count("\n") == 1
    assert re.search(told, error)


def test_a_broken_sandbox_is_told_and_is_no_verdict(
    files: dict[str, str], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from env_workers.sandbox.pool import SandboxPool
    from sdpo.errors import InfrastructureError

    def broken(*_: Any, **__: Any) -> None:
        raise InfrastructureError("the sandbox is gone")

    monkeypatch.setattr(SandboxPool, "execute", broken)
    found = previewed(capfd, files, "--answer", files["right.txt"], exit_code=1)
    assert found["attempt"]["verdict"]["infrastructure_error"] == "the sandbox is gone"
    assert found["hindsight"] is None

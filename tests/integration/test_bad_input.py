"""Bad input: one line that names the key or file, the value and what is allowed; exit code 2; nothing lost."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from orchestrator.cli import main
from tests.fixtures.run import ROOT, RUN_FILE, command, small


def refused(folder: Path, *overrides: str, run_file: str | Path = RUN_FILE) -> str:
    """The one line that a refused run prints; nothing was written into `folder`."""
    before = sorted(folder.rglob("*"))
    done = subprocess.run(
        command(run_file, *overrides), cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 2, done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert sorted(folder.rglob("*")) == before
    return lines[0]


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("batch.taskz=3", ("batch.taskz", "batch.tasks")),
        ("batch.tasks=many", ("batch.tasks", "many", "integer")),
        ("objective.kind=ppo", ("objective.kind", "ppo", "sdpo", "grpo")),
        ("objective.top_k=50", ("objective.top_k=50", "rollout.max_logprobs=20")),
        ("rollout.sampling.top_p=0.9", ("rollout.sampling.top_p", "0.9", "1.0")),
        ("hindsight.max_prompt_tokens=100000", ("hindsight.max_prompt_tokens=100000", "at most")),
        ("hindsight.max_prompt_tokens=40", ("hindsight template", "hindsight.max_prompt_tokens=40")),
        ("tasks.max_prompt_tokens=10", ("its prompt has", "tasks.max_prompt_tokens=10")),
        ("batch.tasks=1000000", ("batch.tasks=1000000", "at most")),
        ("tasks.train=nowhere.jsonl", ("nowhere.jsonl",)),
        ("model.path=no/such/model", ("no/such/model",)),
        ("env.code=[no/such/world.py]", ("env.code=no/such/world.py", "no such file")),
        ("tasks.adapter=mbbp", ("tasks.adapter=mbbp", "mbpp", "module:function")),
    ],
)
def test_bad_config(tmp_path: Path, capsys: pytest.CaptureFixture[str], override: str, words: tuple[str, ...]) -> None:
    """In this process: an interpreter of its own for each would take five seconds."""
    assert main(["train", str(ROOT / RUN_FILE), *small(tmp_path), override]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert all(word in line for word in words), line
    assert list(tmp_path.iterdir()) == []


def test_bad_task_file(tmp_path: Path) -> None:
    file = tmp_path / "tasks.jsonl"
    file.write_text('{"id": "a"}\n')
    line = refused(tmp_path, *small(tmp_path), f"tasks.train={file}")
    assert f"{file}" in line
    assert "messages" in line


def test_a_task_with_a_malformed_test_is_refused_before_the_run(tmp_path: Path) -> None:
    file = tmp_path / "tasks.jsonl"
    good = (ROOT / "examples/tinycoder/tasks/train.jsonl").read_text().splitlines()[:8]
    bad = json.loads(good[0]) | {"id": "broken", "payload": {"tests": [{"kind": "functional"}]}}
    file.write_text("\n".join([*good, json.dumps(bad)]) + "\n")
    line = refused(tmp_path, *small(tmp_path), f"tasks.train={file}")
    assert "broken" in line


def test_a_world_of_ones_own_that_refuses_its_tasks_is_refused_before_the_run(tmp_path: Path) -> None:
    code, tasks = tmp_path / "unjudged_world.py", tmp_path / "records.json"
    code.write_text(
        "from env_workers.environment import SingleTurnEnvironment\n"
        "class World(SingleTurnEnvironment):\n"
        "    @classmethod\n"
        "    def check(cls, task): task.payload['answer']\n"
        "    def judge(self, task, reply): ...\n"
    )
    tasks.write_text(json.dumps([{"q": f"{n}?", "answer": n} for n in range(3)] + [{"q": "4?"}]))
    own = (f"tasks.train={tasks}", "tasks.heldout=null", "tasks.adapter=records", f"env.code=[{code}]")
    options = "tasks.options={environment: 'unjudged_world:World', prompt: '{q}'}"
    line = refused(tmp_path, *small(tmp_path), *own, options)
    assert "environment unjudged_world:World, task train-4: check raised KeyError: 'answer'" in line


def test_a_model_without_weights_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(ROOT / "examples/tinycoder/model", folder, ignore=shutil.ignore_patterns("*.safetensors"))
    line = refused(tmp_path, *small(tmp_path), f"model.path={folder}")
    assert str(folder) in line

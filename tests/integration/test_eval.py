"""`sdpo eval` with a real engine and a real sandbox: the result is what its samples say, and repeats itself."""

import json
import statistics
import sys
from pathlib import Path
from typing import Any

import pytest

from sdpo.metrics import interval_over_tasks, pass_at_k
from tests.fixtures.run import ROOT, finished

MODEL = ROOT / "examples/tinycoder/model"
HELDOUT = ROOT / "examples/tinycoder/tasks/heldout.jsonl"
TRAIN = ROOT / "examples/tinycoder/tasks/train.jsonl"

TWICE = """
import json, sys
from orchestrator.commands.eval import run as eval_run
from orchestrator.cli import main
from orchestrator.batch.evaluator import Evaluator

class Twice(Evaluator):
    async def evaluate(self, tasks):
        first = await super().evaluate(tasks)
        with open(sys.argv[1], "w") as file:
            file.writelines(json.dumps(eval_run.sample_line(j)) + "\\n" for j in first)
        return await super().evaluate(tasks)

eval_run.Evaluator = Twice
sys.exit(main(sys.argv[2:]))
"""
AWAY = """
from env_workers.environment import SingleTurnEnvironment
from sdpo.errors import InfrastructureError

class Away(SingleTurnEnvironment):
    def judge(self, task, reply):
        raise InfrastructureError("the judge is away")
"""


def lines_of(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def task_file(folder: Path) -> Path:
    """16 held-out tasks, of which the first is a training task, too; and one whose environment is broken."""
    tasks = lines_of(HELDOUT)[:16]
    tasks[0]["messages"] = lines_of(TRAIN)[0]["messages"]
    tasks.append(tasks[1] | {"id": "unjudged", "environment": "away_world:Away"})
    file = folder / "tasks.jsonl"
    file.write_text("".join(json.dumps(task) + "\n" for task in tasks))
    return file


def test_numbers_are_those_of_the_samples_and_losses_are_no_failures(tmp_path: Path) -> None:
    """`deterministic=true`: a second evaluation by the same engine gives the same samples."""
    (tmp_path / "twice.py").write_text(TWICE)
    (tmp_path / "away_world.py").write_text(AWAY)
    out, samples, first = tmp_path / "out.json", tmp_path / "samples.jsonl", tmp_path / "first.jsonl"
    options = ["--samples", "4", "--k", "1,3", "--max-response-tokens", "64", "--train-tasks", str(TRAIN)]
    options += ["--out", str(out), "--save-samples", str(samples)]
    settings = [f"env.code=[{tmp_path / 'away_world.py'}]", "env.max_attempts=2", "deterministic=true"]
    command = [sys.executable, str(tmp_path / "twice.py"), str(first)]
    command += ["eval", str(MODEL), str(task_file(tmp_path)), *options, *settings]
    text = finished(command, tmp_path / "log")

    result, judged = json.loads(out.read_text()), lines_of(samples)
    assert lines_of(first) == judged
    assert [(line["task"], line["sample"]) for line in judged[:5]] == [
        *(("heldout-0000", i) for i in range(4)),
        ("heldout-0001", 0),
    ]
    assert len({line["response"] for line in judged}) > 17
    lost = [line for line in judged if line["task"] == "unjudged"]
    assert [(line["kind"], line["reward"]) for line in lost] == [("infrastructure_error", None)] * 4
    assert result["infrastructure"]["lost"] == 4
    assert "the judge is away" in next(iter(result["infrastructure"]["reasons"]))
    assert result["samples"] == {"asked": 68, "judged": 64, "passed": sum(line["success"] for line in judged)}
    assert result["tasks"] == {"asked": 17, "judged": 16}
    assert sum(kind["count"] for kind in result["kinds"]) == 64

    by_task: dict[str, list[bool]] = {}
    for line in judged[:64]:
        by_task.setdefault(line["task"], []).append(line["success"])
    for k in (1, 3):
        values = [pass_at_k(4, sum(row), k) for row in by_task.values()]
        interval = interval_over_tasks(values)
        assert interval is not None
        expected = {"mean": statistics.fmean(values), "low": interval.low, "high": interval.high}
        assert result["pass@k"][str(k)] == pytest.approx(expected | {"tasks": 16, "interval": interval.method})
    firsts = [statistics.fmean(row[:3]) for row in by_task.values()]
    assert result["avg@k"]["3"]["success"]["mean"] == pytest.approx(statistics.fmean(firsts))
    tokens = [line["tokens"] for line in judged[:64]]
    assert result["response_tokens"]["all"]["mean"] == pytest.approx(statistics.fmean(tokens))
    assert 0.05 < result["pass@1"]["mean"] < 0.95

    assert result["overlap"]["num_overlapping"] == 1
    assert "warning: 1 of 17 evaluation tasks ask the same question as a training task" in text
    assert f"pass@1{'':8}{result['pass@1']['mean']:>7.3f}" in text
    assert result["settings"]["model"]["max_model_len_tokens"] < 200
    assert {"python", "torch", "ray"} <= result["versions"].keys()

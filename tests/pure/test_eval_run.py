"""`sdpo eval` with the actors replaced: the result, the samples file, and what is refused before anything starts."""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator.commands.eval import run as module
from orchestrator.commands.eval.config import Request
from orchestrator.commands.eval.run import evaluate
from orchestrator.events import AttemptJudged, emit
from orchestrator.group import AttemptRecord
from sdpo.errors import ConfigError, RunInterrupted
from sdpo.types import Task
from tests.fixtures.orchestrator import FAILED, LOST, PASSED, judged

EXAMPLE = Path(__file__).parents[2] / "examples/tinycoder"


class Evaluator:
    """Judges two samples of each task: the first one passes, the second one fails, that of the last task is lost."""

    def __init__(self, config: Any, *_: Any) -> None:
        pass

    async def evaluate(self, tasks: Sequence[Task]) -> list[AttemptRecord]:
        found = []
        for task in tasks:
            last = LOST if task is tasks[-1] else FAILED
            found += [judged(task, 0, PASSED, text="yes", num_response_tokens=4), judged(task, 1, last)]
        for attempt in found:
            emit(AttemptJudged(batch_index=None, header=attempt.header, verdict=attempt.verdict))
        return found


class Interrupted(Evaluator):
    async def evaluate(self, tasks: Sequence[Task]) -> list[AttemptRecord]:
        raise KeyboardInterrupt


@pytest.fixture(autouse=True)
def _no_actors(monkeypatch: pytest.MonkeyPatch) -> None:
    @asynccontextmanager
    async def actors(*_: Any, **__: Any) -> AsyncIterator[Any]:
        yield SimpleNamespace(sampler=None, envs=None)

    monkeypatch.setattr(module, "generating", actors)
    monkeypatch.setattr(module, "require_sandbox", lambda config: None)
    monkeypatch.setattr(module, "Evaluator", Evaluator)


def request(**options: Any) -> Request:
    settings = {"evaluation.samples_per_task": 2, "evaluation.temperature": 0.5, "tasks.max_heldout": 3}
    given: dict[str, Any] = {
        "model": EXAMPLE / "model",
        "tasks": str(EXAMPLE / "tasks/heldout.jsonl"),
        "settings": settings,
    }
    return Request(**(given | options))


def test_result_and_samples_are_written(tmp_path: Path) -> None:
    out, samples = tmp_path / "result.json", tmp_path / "samples.jsonl"
    result = evaluate(request(out=out, save_samples=samples))
    assert json.loads(out.read_text()) == result
    assert result["samples"] == {"asked": 6, "judged": 5, "passed": 3}
    assert result["pass@1"]["mean"] == pytest.approx((0.5 + 0.5 + 1) / 3)
    assert result["infrastructure"]["reasons"] == {"the engine is away": 1}
    assert (result["sampling"]["samples"], result["sampling"]["temperature"]) == (2, 0.5)
    assert result["tasks_file"]["limit"] == 3
    assert len(result["model"]["sha256"]["weights"]) == 64
    assert result["speed"]["response_tokens"] == 3 * 4 + 3
    assert result["overlap"]["checked"] is False
    lines = [json.loads(line) for line in samples.read_text().splitlines()]
    assert [(line["sample"], line["success"], line["response"], line["tokens"]) for line in lines[:2]] == [
        (0, True, "yes", 4),
        (1, False, "", 1),
    ]
    assert lines[-1]["infrastructure_error"] == "the engine is away"
    assert lines[-1]["reward"] is None


def test_an_interrupted_evaluation_has_no_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "Evaluator", Interrupted)
    with pytest.raises(RunInterrupted, match="has no result"):
        evaluate(request(out=tmp_path / "result.json"))
    assert list(tmp_path.iterdir()) == []


def test_a_result_needs_a_folder_that_exists(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--save-samples .*allowed: a file in a folder that exists"):
        evaluate(request(save_samples=tmp_path / "none" / "samples.jsonl"))

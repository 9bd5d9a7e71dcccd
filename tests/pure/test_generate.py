"""`sdpo generate` without actors: which batches it makes, what it says, and what it refuses."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator.commands.generate import generate as module
from orchestrator.commands.generate.generate import generate
from orchestrator.group import AttemptRecord, Group
from orchestrator.recorded.batch_file import batch_file
from sdpo.config import RunConfig
from sdpo.errors import ConfigError, InfrastructureError
from sdpo.types import Task, Verdict
from tests.fixtures.orchestrator import FAILED, LOST, PASSED, judged

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples/tinycoder"


def config(**changes: Any) -> RunConfig:
    sections = {
        "model": {"path": str(EXAMPLE / "model")},
        "tasks": {"train": str(EXAMPLE / "tasks/train.jsonl"), "heldout": None},
        "batch": {"tasks": 2, "samples_per_task": 2},
        "steps": 3,
    }
    return RunConfig.model_validate(sections | changes)


class Source:
    """Gives one attempt for each of `verdicts` at every task."""

    verdicts: Sequence[Verdict] = (PASSED, FAILED)

    def __init__(self, *_: Any) -> None:
        self.expected: list[str] = []

    def expect(self, task_ids: Sequence[str]) -> None:
        self.expected = list(task_ids)

    async def judged(self, batch_index: int, task: Task, seconds: dict[str, float]) -> list[AttemptRecord]:
        assert task.id in self.expected
        await asyncio.sleep(0)
        return [judged(task, i, verdict) for i, verdict in enumerate(self.verdicts)]


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[Sequence[Group]]:
    """The batches that were recorded; their files are empty."""
    batches: list[Sequence[Group]] = []

    @asynccontextmanager
    async def actors(*_: Any, **__: Any) -> AsyncIterator[Any]:
        yield SimpleNamespace(sampler=None, envs=None)

    def record(folder: Path, groups: Sequence[Group], timeout_s: float) -> int:
        with pytest.raises(ConfigError, match="is being written by another process"):
            generate(config(), folder)
        batches.append(groups)
        batch_file(folder, groups[0].batch_index).touch()
        return 2**20

    monkeypatch.setattr(module, "generating", actors)
    monkeypatch.setattr(module, "require_sandbox", lambda config: None)
    monkeypatch.setattr(module, "Attempts", Source)
    monkeypatch.setattr(module, "record_rollouts", record)
    return batches


def test_batches_that_are_there_stay_and_the_others_are_made(
    tmp_path: Path, recorded: list[Sequence[Group]], capsys: pytest.CaptureFixture[str]
) -> None:
    generate(config(steps=1), tmp_path)
    assert "0 of 1 batches are there\nbatch 1/1  4 attempts  reward 0.500  1.00 MiB" in capsys.readouterr().out
    generate(config(), tmp_path)
    assert [[g.batch_index for g in groups] for groups in recorded] == [[0, 0], [1, 1], [2, 2]]
    assert [g.index for g in recorded[0]] == [0, 1]
    assert len({group.task.id for groups in recorded for group in groups}) == 6
    generate(config(), tmp_path)
    assert len(recorded) == 3
    assert capsys.readouterr().out.endswith("3 of 3 batches are there\n")


def test_a_folder_with_batches_of_another_seed_is_refused(tmp_path: Path, recorded: list[Sequence[Group]]) -> None:
    generate(config(steps=1), tmp_path)
    with pytest.raises(ConfigError, match="seed"):
        generate(config(seed=1), tmp_path)


def test_a_batch_that_lost_too_much_is_not_recorded(
    tmp_path: Path, recorded: list[Sequence[Group]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Source, "verdicts", (PASSED, LOST))
    with pytest.raises(InfrastructureError, match=r"50% of a batch's attempts.*the engine is away"):
        generate(config(), tmp_path)
    assert recorded == []


def test_a_run_that_reads_recorded_batches_makes_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"rollout\.recorded=.*: allowed with generate: none"):
        generate(config(rollout={"recorded": str(tmp_path)}), tmp_path)

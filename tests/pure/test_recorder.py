"""The recorder without actors: what it emits for a step, and when it writes a checkpoint."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator.events import CheckpointWritten, Event, StageEntered, StepRecorded, listening
from orchestrator.recorder import RunRecorder
from orchestrator.run_dir.alarm_log import AlarmLog
from orchestrator.telemetry.run_telemetry import Telemetry
from sdpo.config import RunConfig
from sdpo.errors import LockLost
from sdpo.telemetry.meters import Meters
from tests.fixtures.meters import RememberedMetrics
from tests.fixtures.orchestrator import group


class Directory:
    """A run directory in which checkpoints are only counted."""

    def __init__(self, path: Path) -> None:
        self.path, self.rollouts, self.checkpoints = path, path / "rollouts", self
        self.is_held, self.saved = True, list[tuple[int, float | None]]()

    def require_held(self) -> None:
        if not self.is_held:
            raise LockLost("the run lock is lost")

    def push(self) -> None: ...

    def push_if_possible(self) -> None: ...

    def begin(self, steps: int) -> str:
        return f"step-{steps}"

    def commit(self, folder: str, steps: int, pass_at_1: float | None, reward: float | None) -> None:
        assert folder == f"step-{steps}"
        self.saved.append((steps, pass_at_1))


def recorder_of(folder: Path, **checkpoint: Any) -> tuple[RunRecorder, Directory]:
    config = RunConfig.model_validate({"record": {"samples_per_step": 0, "trace": False}, "checkpoint": checkpoint})

    async def save(folder: str) -> None: ...

    run_dir, actors = Directory(folder), SimpleNamespace(actors=[], gang=SimpleNamespace(save=save))
    telemetry = Telemetry(Meters(RememberedMetrics(), "demo-1"), folder, None)
    alarm_log = AlarmLog(config.health, folder)
    parts: Any = (config, run_dir, actors, alarm_log, telemetry, None, [], None, None)
    return RunRecorder(*parts), run_dir


def test_a_step_is_emitted_with_its_attempts_and_all_metrics(tmp_path: Path) -> None:
    recorder, run_dir = recorder_of(tmp_path, every_steps=0)
    heard = list[Event]()
    with listening(heard.append):
        asyncio.run(recorder.record(3, [group(0, [True]), group(1, [True, False])], {"rollout/reward": 0.5}))
    assert [type(event) for event in heard] == [StageEntered, StepRecorded]
    step = heard[-1]
    assert isinstance(step, StepRecorded)
    assert (step.step, len(step.headers)) == (3, 3)
    assert step.metrics["rollout/reward"] == 0.5
    assert {"health/alarms", "memory/orchestrator_bytes"} <= step.metrics.keys()
    assert run_dir.saved == []


def test_a_checkpoint_is_written_when_it_is_due_and_once_for_the_same_steps(tmp_path: Path) -> None:
    recorder, run_dir = recorder_of(tmp_path, every_steps=2)
    heard = list[Event]()

    async def steps() -> None:
        for step in range(1, 5):
            await recorder.record(step, [], {})
        await recorder.checkpoint(4)

    with listening(heard.append):
        asyncio.run(steps())
    assert run_dir.saved == [(2, None), (4, None)]
    assert [event.step for event in heard if isinstance(event, CheckpointWritten)] == [2, 4]


def test_nothing_is_recorded_without_the_run_lock(tmp_path: Path) -> None:
    recorder, run_dir = recorder_of(tmp_path, every_steps=1)
    run_dir.is_held = False
    heard = list[Event]()
    with listening(heard.append), pytest.raises(LockLost):
        asyncio.run(recorder.record(1, [], {}))
    assert heard == []
    assert run_dir.saved == []

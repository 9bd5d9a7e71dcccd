"""Records each step of a run: held-out results, samples, metrics, alarms and checkpoints."""

import asyncio
import contextlib
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestrator.actors.memory import MemoryGauge
from orchestrator.actors.run_actors import RunActors
from orchestrator.batch.evaluator import Evaluator
from orchestrator.batch.step_metrics import heldout_metrics, speed_metrics
from orchestrator.events import AlarmRaised, CheckpointWritten, Message, StageEntered, StepRecorded, emit
from orchestrator.group import AttemptRecord, Group
from orchestrator.recorded.recording import record_rollouts
from orchestrator.run_dir.alarm_log import AlarmLog
from orchestrator.run_dir.model_card import CARD, Exported, model_card
from orchestrator.run_dir.run_dir import RunDir
from orchestrator.run_dir.run_view import RunView
from orchestrator.run_dir.samples import record_samples
from orchestrator.telemetry.deadlines import with_deadline
from orchestrator.telemetry.run_telemetry import Telemetry
from orchestrator.telemetry.spans import bind_context, during
from sdpo.config import RunConfig
from sdpo.errors import LockLost, StorageError, TransferError
from sdpo.run_layout import SAMPLES, step_file
from sdpo.storage_cache import with_local_model
from sdpo.types import Task


class RunRecorder:
    """Keeps the run directory up to date, and emits what it has recorded."""

    def __init__(
        self,
        config: RunConfig,
        run_dir: RunDir,
        actors: RunActors,
        alarm_log: AlarmLog,
        telemetry: Telemetry,
        evaluator: Evaluator,
        heldout: Sequence[Task],
        tokenizer: Any,
        saved_steps: int | None,
    ) -> None:
        """`saved_steps` are the steps of the checkpoint that the run continues from; None without one."""
        self._config, self._run_dir, self._actors = config, run_dir, actors
        self._alarm_log, self._telemetry = alarm_log, telemetry
        self._evaluator, self._heldout, self._tokenizer = evaluator, heldout, tokenizer
        self._memory = MemoryGauge(actors)
        self._checkpointed_steps = saved_steps
        self._measured: tuple[int, float, float] | None = None
        self._telemetry.times()  # the time in which the actors started belongs to no step

    async def before_training(self) -> None:
        """Measure the base model: held-out results, and how many failures it repairs when shown its feedback."""
        self._memory.ask()
        bind_context(step=0)
        judged, metrics = await self._evaluate()
        if judged and self._config.evaluation.measure_repair:
            emit(StageEntered(stage="evaluate", expected=sum(not j.verdict.success for j in judged)))
            with during("evaluate"):
                metrics |= heldout_metrics(await self._evaluator.repair(judged), "repair")
        metrics |= self._telemetry.times()
        metrics |= self._alarm_log.observe(0, metrics)[0]
        await self._write_trace(0)
        emit(StepRecorded(step=0, metrics=metrics))
        await self._push()

    async def evaluate_if_due(self, steps: int) -> dict[str, float]:
        """Return held-out metrics after every `evaluation.every_steps` steps and after the last one, else {}."""
        metrics = (await self._evaluate())[1] if self._config.is_evaluated(steps) else {}
        pass_at_1 = metrics.get("heldout/pass@1", math.nan)
        if math.isfinite(pass_at_1):
            self._measured = steps, pass_at_1, metrics["heldout/reward"]
        return metrics

    async def record(self, steps: int, groups: Sequence[Group], metrics: Mapping[str, float]) -> None:
        """Record a step in the run directory, then write a checkpoint if one is due or an alarm begins.

        The order matters: every step of a checkpoint is recorded, and recorded steps after a checkpoint are done again.
        Raises `StoppedByAlarm` if health.on_alarm is stop, and `LockLost` before anything is written.
        """
        self._run_dir.require_held()
        emit(StageEntered(stage="save"))
        self._memory.ask()
        metrics = {**metrics, **speed_metrics(groups, metrics)}
        timeout_s = self._config.deadlines.checkpoint_s
        if limit := self._config.record.samples_per_step:
            file = step_file(self._run_dir.path / SAMPLES, steps)
            with _timed(metrics, "time/record_samples_s"):
                await asyncio.to_thread(record_samples, file, groups, limit, self._tokenizer, timeout_s)
        if self._config.record.rollouts:
            with _timed(metrics, "time/record_rollouts_s"):
                await asyncio.to_thread(record_rollouts, self._run_dir.rollouts, groups, timeout_s)
        metrics |= self._memory.figures() | self._telemetry.times()
        health, begun = self._alarm_log.observe(steps, metrics)
        await self._write_trace(steps)
        attempts = [attempt for group in groups for attempt in group.attempts]
        emit(
            StepRecorded(
                step=steps,
                metrics={**metrics, **health},
                headers=[attempt.header for attempt in attempts],
                num_passed=sum(attempt.verdict.success for attempt in attempts),
            )
        )
        for alarm in begun:
            emit(AlarmRaised(alarm=alarm))
        await self._push()
        if begun or self._is_due(steps):
            await self.checkpoint(steps)
        self._alarm_log.stop_if_asked(begun)

    async def checkpoint(self, steps: int) -> None:
        """Write a checkpoint of `steps` steps, unless the newest one is of these steps already."""
        if steps == self._checkpointed_steps:
            return
        checkpoints, started = self._run_dir.checkpoints, time.monotonic()
        try:
            await asyncio.to_thread(self._run_dir.push)
            folder = await asyncio.to_thread(checkpoints.begin, steps)
            await self._actors.gang.save(folder)
            self._run_dir.require_held()
            await asyncio.to_thread(checkpoints.commit, folder, steps, *self._scores(steps))
        except LockLost:
            raise
        except Exception:
            await asyncio.to_thread(self._clear)
            raise
        self._checkpointed_steps = steps
        emit(CheckpointWritten(step=steps, seconds=time.monotonic() - started))

    async def export(self) -> str:
        """Write the policy in Hugging Face format with its model card; return the folder. A checkpoint must exist."""
        model = with_local_model(self._config).model
        exported = Exported(steps=self._checkpointed_steps or 0, base=Path(model.path), dtype=model.dtype)
        card = model_card(RunView(self._run_dir.path), exported)
        self._run_dir.require_held()
        await self._actors.gang.export(self._run_dir.model, {CARD: card})
        return self._run_dir.model

    async def _write_trace(self, steps: int) -> None:
        if self._config.record.trace:
            await asyncio.to_thread(self._telemetry.write_trace, steps)

    async def _push(self) -> None:
        """Upload new files to the store; what fails is tried again with the next step or checkpoint."""
        failure = await asyncio.to_thread(self._run_dir.push_if_possible)
        if failure:
            emit(Message(text=f"{failure}; tried again with the next step"))

    def _clear(self) -> None:
        """Remove the unfinished checkpoint, which takes space of a full disk, unless the store does not answer."""
        with contextlib.suppress(TransferError, StorageError):
            self._run_dir.checkpoints.clear()

    def _is_due(self, steps: int) -> bool:
        """Return whether a checkpoint is due by its interval, or is a candidate for `checkpoint.keep_best`."""
        config = self._config.checkpoint
        is_candidate = config.keep_best > 0 and self._scores(steps)[0] is not None
        return is_candidate or (config.every_steps > 0 and steps % config.every_steps == 0)

    def _scores(self, steps: int) -> tuple[float | None, float | None]:
        """Return the held-out pass@1 and mean reward that were measured after exactly `steps` steps."""
        if self._measured is None or self._measured[0] != steps:
            return None, None
        return self._measured[1:]

    async def _evaluate(self) -> tuple[list[AttemptRecord], dict[str, float]]:
        """Sample and judge the held-out tasks; return the attempts and their metrics, empty without such tasks."""
        if not self._heldout:
            return [], {}
        num_samples = len(self._heldout) * self._config.evaluation.samples_per_task
        emit(StageEntered(stage="evaluate", expected=num_samples))
        metrics = dict[str, float]()
        with _timed(metrics, "time/evaluate_s"), during("evaluate"):
            judged = await with_deadline(
                self._evaluator.evaluate(self._heldout),
                actor="evaluation",
                stage="held-out tasks",
                timeout_s=self._config.deadlines.train_s,
            )
        return judged, heldout_metrics(judged, "heldout") | metrics


@contextlib.contextmanager
def _timed(metrics: dict[str, float], name: str) -> Iterator[None]:
    """Set the metric `name` to the seconds that the block took."""
    started_s = time.monotonic()
    yield
    metrics[name] = time.monotonic() - started_s

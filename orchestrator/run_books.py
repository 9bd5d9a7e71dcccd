"""What a run writes down while it goes: metrics, samples, checkpoints, held-out results; progress is told of them."""

import asyncio
import contextlib
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestrator.evaluation import Evaluator, Judged
from orchestrator.group import Group
from orchestrator.health import Watch
from orchestrator.house import House
from orchestrator.measure import heldout_metrics, is_evaluated, speed_metrics
from orchestrator.memory import MemoryGauge
from orchestrator.metrics_log import MetricsLog
from orchestrator.model_card import CARD, Exported, model_card
from orchestrator.progress import Progress
from orchestrator.recording import record_rollouts
from orchestrator.run_dir import RunDir
from orchestrator.run_view import RunView
from orchestrator.samples import record_samples
from orchestrator.spans import about, during
from orchestrator.telemetry import current
from orchestrator.waits import within
from sdpo.config import RunConfig
from sdpo.errors import LeaseLost, StorageError, TransferError
from sdpo.storage_cache import with_local_model
from sdpo.types import Task


class RunBooks:
    """Keeps the run directory up to date; the loop tells it what happened."""

    def __init__(
        self,
        config: RunConfig,
        run_dir: RunDir,
        house: House,
        log: MetricsLog,
        evaluator: Evaluator,
        heldout: Sequence[Task],
        tokenizer: Any,
        saved_steps: int | None,
        progress: Progress,
    ) -> None:
        """`saved_steps`: steps of the checkpoint that the run goes on from; None without one."""
        self._config, self._run_dir, self._house, self._log = config, run_dir, house, log
        self._evaluator, self._heldout, self._tokenizer = evaluator, heldout, tokenizer
        self.progress = progress
        self._memory = MemoryGauge(house)
        self._watch = Watch(config.health, run_dir.path)
        self._checkpointed_steps = saved_steps
        self._measured: tuple[int, float] | None = None
        current().times()  # what the actors did until they were up belongs to no step

    async def before_training(self) -> None:
        """Measure the base model: held-out pass@1, and how many failures it repairs when shown its feedback."""
        self._memory.ask()
        about(step=0)
        judged, metrics = await self._evaluate()
        if judged and self._config.evaluation.measure_repair:
            self.progress.enter("evaluate", sum(not j.verdict.success for j in judged))
            with during("evaluate"):
                metrics |= heldout_metrics(await self._evaluator.repair(judged), "repair")
        metrics |= current().times()
        current().measured(metrics)
        metrics |= self._watch.observe(0, metrics)[0]
        self._log.write(0, metrics)
        await self._write_trace(0)
        self.progress.step_done(0, metrics)
        await self._push()

    async def evaluate_if_due(self, steps: int) -> dict[str, float]:
        """Held-out metrics after every `evaluation.every_steps` steps and after the last one."""
        metrics = (await self._evaluate())[1] if is_evaluated(steps, self._config) else {}
        pass_at_1 = metrics.get("heldout/pass@1", math.nan)
        if math.isfinite(pass_at_1):
            self._measured = steps, pass_at_1
        return metrics

    async def record(self, steps: int, groups: Sequence[Group], metrics: Mapping[str, float]) -> None:
        """Write the step down, then a checkpoint when one is due or an alarm begins.

        In this order: what a checkpoint holds is in the books, and what the books hold beyond it is done again.
        Raises `StoppedByAlarm` where the config asks for it, and `LeaseLost` before anything is written.
        """
        self._run_dir.require_held()
        self.progress.enter("save")
        self._memory.ask()
        metrics = {**metrics, **speed_metrics(groups, metrics)}
        if self._config.record.samples_per_step:
            started = time.monotonic()
            file = self._run_dir.path / "samples" / f"step-{steps:06d}.jsonl"
            limit, timeout_s = self._config.record.samples_per_step, self._config.deadlines.checkpoint_s
            await asyncio.to_thread(record_samples, file, groups, limit, self._tokenizer, timeout_s)
            metrics["time/record_samples_s"] = time.monotonic() - started
        if self._config.record.rollouts:
            started = time.monotonic()
            timeout_s = self._config.deadlines.checkpoint_s
            await asyncio.to_thread(record_rollouts, self._run_dir.rollouts, groups, timeout_s)
            metrics["time/record_rollouts_s"] = time.monotonic() - started
        metrics |= self._memory.figures() | current().times()
        health, begun = self._watch.observe(steps, metrics)
        self._tell_telemetry(steps, groups, metrics)
        current().alarmed(health, begun)
        await self._write_trace(steps)
        self._log.write(steps, {**metrics, **health})
        self.progress.step_done(steps, metrics)
        self._watch.write(begun)
        for alarm in begun:
            self.progress.say(f"ALARM {alarm.name} at step {alarm.step}: {alarm.message}")
        await self._push()
        if begun or self._is_due(steps):
            await self.checkpoint(steps)
        self._watch.stop_if_asked(begun)

    async def checkpoint(self, steps: int) -> None:
        """Save everything that resuming needs, unless these steps are saved already."""
        if steps == self._checkpointed_steps:
            return
        checkpoints, started = self._run_dir.checkpoints, time.monotonic()
        try:
            await asyncio.to_thread(self._run_dir.push)
            folder = await asyncio.to_thread(checkpoints.begin, steps)
            await self._house.gang.save(folder)
            self._run_dir.require_held()
            await asyncio.to_thread(checkpoints.commit, folder, steps, self._pass_at_1(steps))
        except LeaseLost:
            raise
        except Exception:
            await asyncio.to_thread(self._clear)
            raise
        self._checkpointed_steps = steps
        current().checkpointed(steps, time.monotonic() - started)

    async def export(self) -> str:
        """The policy in Hugging Face format and its card, in `model/`; a checkpoint of these steps was made before."""
        model = with_local_model(self._config).model
        exported = Exported(steps=self._checkpointed_steps or 0, base=Path(model.path), dtype=model.dtype)
        card = model_card(RunView(self._run_dir.path), exported)
        self._run_dir.require_held()
        await self._house.gang.export(self._run_dir.model, {CARD: card})
        return self._run_dir.model

    def _tell_telemetry(self, steps: int, groups: Sequence[Group], metrics: Mapping[str, float]) -> None:
        attempts = [a for group in groups for a in group.attempts]
        current().attempted(
            steps,
            [a.header for a in attempts],
            passed=sum(a.verdict.success for a in attempts),
            dropped=sum(len(group.dropped) for group in groups),
            trained=int(metrics.get("attempts/trained", 0)),
        )
        current().measured(metrics)

    async def _write_trace(self, steps: int) -> None:
        if self._config.record.trace:
            await asyncio.to_thread(current().write_trace, steps)

    async def _push(self) -> None:
        """What the store does not take now goes with the next step, at the latest with the next checkpoint."""
        failure = await asyncio.to_thread(self._run_dir.push_if_possible)
        if failure:
            self.progress.say(f"{failure}; tried again with the next step")

    def _clear(self) -> None:
        """What is half written may hold the room that the disk lacks; a store that is away cannot be asked."""
        with contextlib.suppress(TransferError, StorageError):
            self._run_dir.checkpoints.clear()

    def _is_due(self, steps: int) -> bool:
        """Whether the config wants a checkpoint; one that is measured may be the best so far."""
        config = self._config.checkpoint
        is_candidate = config.keep_best > 0 and self._pass_at_1(steps) is not None
        return is_candidate or (config.every_steps > 0 and steps % config.every_steps == 0)

    def _pass_at_1(self, steps: int) -> float | None:
        """Held-out, after exactly so many steps."""
        return self._measured[1] if self._measured is not None and self._measured[0] == steps else None

    async def _evaluate(self) -> tuple[list[Judged], dict[str, float]]:
        if not self._heldout:
            return [], {}
        started = time.monotonic()
        self.progress.enter("evaluate", len(self._heldout) * self._config.evaluation.samples_per_task)
        with during("evaluate"):
            judged = await within(
                self._evaluator.evaluate(self._heldout),
                actor="evaluation",
                stage="held-out tasks",
                timeout_s=self._config.deadlines.train_s,
            )
        metrics = heldout_metrics(judged, "heldout")
        return judged, metrics | {"time/evaluate_s": time.monotonic() - started}

"""Recorded rollouts: written from a batch's groups, and read again in place of sampling and judging."""

import asyncio
import dataclasses
import itertools
import time
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import ray

from orchestrator.fingerprint import Fingerprint
from orchestrator.group import AttemptRecord, Group
from orchestrator.recorded_format import (
    RecordedAttempt,
    RecordedBatch,
    batch_file,
    read_batch,
    read_digest,
    read_tasks,
    write_batch,
)
from orchestrator.recorded_manifest import NAME, Manifest
from sdpo.config import RunConfig
from sdpo.errors import RecordingError
from sdpo.types import Rollout, Segment, Task


def record_rollouts(folder: Path, groups: Sequence[Group], timeout_s: float) -> int:
    """Write the batch that `groups` are, all of its attempts, dropped ones too. Blocks; returns the size in bytes."""
    attempts = []
    for place, group in enumerate(groups):
        for record in sorted((*group.attempts, *group.dropped), key=lambda a: a.header.sample_index):
            lost = record.verdict.infrastructure_error is not None
            rollout = None if lost else ray.get(record.rollout, timeout=timeout_s)
            attempts.append(RecordedAttempt(group=place, header=record.header, verdict=record.verdict, rollout=rollout))
    tasks = tuple(group.task for group in groups)
    return write_batch(folder, RecordedBatch(step=groups[0].step, tasks=tasks, attempts=tuple(attempts)))


def narrowed(rollout: Rollout, support_size: int) -> Rollout:
    """The attempt with the `support_size` most likely ids of each position, 0 for no support."""
    return dataclasses.replace(rollout, segments=tuple(_narrowed(s, support_size) for s in rollout.segments))


def _narrowed(segment: Segment, support_size: int) -> Segment:
    if segment.support_ids is None or segment.support_log_probs is None or not support_size:
        return dataclasses.replace(segment, support_ids=None, support_log_probs=None)
    ids, log_probs = segment.support_ids[:, :support_size], segment.support_log_probs[:, :support_size]
    return dataclasses.replace(segment, support_ids=ids, support_log_probs=log_probs)


class Recording:
    """A folder of recorded batches as an `AttemptSource` and a `TaskOrder`; `check` comes first. Holds one batch."""

    def __init__(self, folder: Path) -> None:
        """Raises `RecordingError` for a folder without a readable manifest."""
        manifest = Manifest.read(folder)
        if manifest is None:
            raise RecordingError(
                f"rollout.recorded={folder}: no {NAME} in it; allowed: a folder that `sdpo generate` wrote, or "
                f"RUN_DIR/rollouts of a run with record.rollouts=true"
            )
        self.folder, self.manifest = folder, manifest
        self._held: RecordedBatch | None = None
        self._loading = asyncio.Lock()
        self._tasks: dict[int, list[Task]] = {}
        self._support_size = manifest.support_size

    def check(self, config: RunConfig, model: Fingerprint) -> list[Task]:
        """Whether a run of `config` can learn from all of its `steps`; returns the tasks, each once.

        Raises `ConfigError` or `RecordingError`, one line, before anything is started.
        """
        self.manifest.check_learns(config, model)
        self._support_size = config.rollout_support_size
        recorded = self.num_batches
        if recorded < config.steps:
            missing = batch_file(self.folder, recorded).name
            raise RecordingError(
                f"steps={config.steps}: rollout.recorded={self.folder} holds {recorded} batches before {missing} is "
                f"missing; allowed: at most {recorded}"
            )
        self._tasks = {step: read_tasks(self.folder, step) for step in range(config.steps)}
        return list({task.id: task for tasks in self._tasks.values() for task in tasks}.values())

    @property
    def num_batches(self) -> int:
        """Batches without a gap from the first."""
        return next(step for step in itertools.count() if not batch_file(self.folder, step).is_file())

    @property
    def digest(self) -> str:
        """SHA-256 of what the recording is, however many batches it has grown to: its manifest and its first batch."""
        content = self.manifest.model_dump_json(exclude={"packages"})
        first = read_digest(self.folder, 0) if batch_file(self.folder, 0).is_file() else ""
        return sha256(f"{content}/{first}".encode()).hexdigest()

    def off_policy(self, model: Fingerprint) -> str:
        """For a person: by which weights the attempts were sampled, seen from a run that starts with `model`."""
        if self.manifest.model.weights != model.weights:
            return "sampled by other weights than those of model.path: every batch is off-policy"
        if self.manifest.weights == "fixed":
            return "sampled by the weights of model.path throughout: batches after the first are off-policy"
        return "sampled by a run that learned as it went: on-policy as long as this run learns the same"

    def batch(self, index: int) -> list[Task]:
        """Tasks of batch `index`, counted from 0."""
        return self._tasks[index]

    def expect(self, task_ids: Sequence[str]) -> None:
        """Everything is there."""

    async def judged(self, step: int, task: Task, seconds: dict[str, float]) -> list[AttemptRecord]:
        """The recorded attempts; those that infrastructure lost have no tokens. Raises `RecordingError` for damage."""
        started = time.monotonic()
        async with self._loading:
            if self._held is None or self._held.step != step:
                self._held = None  # one batch is in memory, not two
                self._held = await asyncio.to_thread(read_batch, self.folder, step)
        found = [
            AttemptRecord(
                header=attempt.header,
                rollout=None if attempt.rollout is None else ray.put(narrowed(attempt.rollout, self._support_size)),
                verdict=attempt.verdict,
            )
            for attempt in self._held.of(task.id)
        ]
        seconds["read"] = time.monotonic() - started
        return found

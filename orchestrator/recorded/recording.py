"""Recorded rollouts: write the groups of a batch, and read them again instead of sampling and judging."""

import asyncio
import dataclasses
import itertools
import time
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import ray

from orchestrator.group import AttemptRecord, Group
from orchestrator.recorded.batch_file import (
    RecordedAttempt,
    RecordedBatch,
    batch_file,
    read_batch,
    read_digest,
    read_tasks,
    write_batch,
)
from orchestrator.recorded.fingerprint import Fingerprint
from orchestrator.recorded.manifest import Manifest
from sdpo.config import RunConfig
from sdpo.errors import RecordingError
from sdpo.run_layout import MANIFEST
from sdpo.types import Rollout, Segment, Task


def record_rollouts(folder: Path, groups: Sequence[Group], timeout_s: float) -> int:
    """Write all attempts of a batch, dropped ones too; return the file's size in bytes. Blocks on Ray and the disk."""
    attempts = []
    for index, group in enumerate(groups):
        for record in sorted((*group.attempts, *group.dropped), key=lambda a: a.header.sample_index):
            lost = record.verdict.infrastructure_error is not None
            rollout = None if lost else ray.get(record.rollout, timeout=timeout_s)
            attempts.append(RecordedAttempt(group=index, header=record.header, verdict=record.verdict, rollout=rollout))
    tasks = tuple(group.task for group in groups)
    return write_batch(folder, RecordedBatch(batch_index=groups[0].batch_index, tasks=tasks, attempts=tuple(attempts)))


def narrowed(rollout: Rollout, support_size: int) -> Rollout:
    """Return the attempt with the `support_size` most likely ids of each position, 0 for no support."""
    return dataclasses.replace(rollout, segments=tuple(_narrowed(s, support_size) for s in rollout.segments))


def _narrowed(segment: Segment, support_size: int) -> Segment:
    if segment.support_ids is None or segment.support_log_probs is None or not support_size:
        return dataclasses.replace(segment, support_ids=None, support_log_probs=None)
    ids, log_probs = segment.support_ids[:, :support_size], segment.support_log_probs[:, :support_size]
    return dataclasses.replace(segment, support_ids=ids, support_log_probs=log_probs)


class Recording:
    """A folder of recorded batches as an `AttemptSource` and a `TaskOrder`. Call `check` first. Keeps one batch in
    memory.
    """

    def __init__(self, folder: Path) -> None:
        """Raises `RecordingError` for a folder without a readable manifest."""
        manifest = Manifest.read(folder)
        if manifest is None:
            raise RecordingError(
                f"rollout.recorded={folder}: no {MANIFEST} in it; allowed: a folder that `sdpo generate` wrote, or "
                f"RUN_DIR/rollouts of a run with record.rollouts=true"
            )
        self.folder, self.manifest = folder, manifest
        self._batch: RecordedBatch | None = None
        self._loading = asyncio.Lock()
        self._tasks: dict[int, list[Task]] = {}
        self._support_size = manifest.support_size

    def check(self, config: RunConfig, model: Fingerprint) -> list[Task]:
        """Return the tasks of the batches that a run of `config` learns from, each once.

        Raises `ConfigError` or `RecordingError`, one line, if the run cannot learn from all of its `steps`.
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
        self._tasks = {index: read_tasks(self.folder, index) for index in range(config.steps)}
        return list({task.id: task for tasks in self._tasks.values() for task in tasks}.values())

    @property
    def num_batches(self) -> int:
        """The number of batches before the first gap."""
        return next(index for index in itertools.count() if not batch_file(self.folder, index).is_file())

    @property
    def digest(self) -> str:
        """SHA-256 of the manifest and the first batch, which stays when the recording grows."""
        undated = {"prompt_date"} if self.manifest.prompt_date is None else set()  # as older versions wrote it
        content = self.manifest.model_dump_json(exclude={"packages", *undated})
        first = read_digest(self.folder, 0) if batch_file(self.folder, 0).is_file() else ""
        return sha256(f"{content}/{first}".encode()).hexdigest()

    def off_policy(self, model: Fingerprint) -> str:
        """Return a sentence for people: how the sampling weights relate to those of a run that starts with `model`."""
        if self.manifest.model.weights != model.weights:
            return "sampled by other weights than those of model.path: every batch is off-policy"
        if self.manifest.weights == "fixed":
            return "sampled by the weights of model.path throughout: batches after the first are off-policy"
        return "sampled by a run that learned as it went: on-policy as long as this run learns the same"

    def batch(self, index: int) -> list[Task]:
        """Return the tasks of batch `index`, counted from 0."""
        return self._tasks[index]

    def expect(self, task_ids: Sequence[str]) -> None:
        """Do nothing: all attempts are recorded already."""

    async def judged(self, batch_index: int, task: Task, seconds: dict[str, float]) -> list[AttemptRecord]:
        """Return the recorded attempts at a task; those that infrastructure lost have no tokens.

        Raises `RecordingError` for a damaged file.
        """
        started = time.monotonic()
        async with self._loading:
            if self._batch is None or self._batch.batch_index != batch_index:
                self._batch = None  # one batch is in memory, not two
                self._batch = await asyncio.to_thread(read_batch, self.folder, batch_index)
        attempts = [
            AttemptRecord(
                task=task,
                header=attempt.header,
                rollout=None if attempt.rollout is None else ray.put(narrowed(attempt.rollout, self._support_size)),
                verdict=attempt.verdict,
            )
            for attempt in self._batch.of(task.id)
        ]
        seconds["read"] = time.monotonic() - started
        return attempts

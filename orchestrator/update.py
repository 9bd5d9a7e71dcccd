"""From a complete batch to new weights everywhere: what must be known first, the optimizer steps, the publication."""

import asyncio
import time
from collections.abc import Sequence

from orchestrator.group import AttemptRecord, Group
from orchestrator.house import House
from orchestrator.measure import sync_metrics
from orchestrator.progress import NOBODY, Progress
from sdpo.types import Version


async def update(
    house: House, batch: int, groups: Sequence[Group], version: Version, progress: Progress = NOBODY
) -> dict[str, float]:
    """Train on `groups`, which are in the order of the batch, and publish the result as `version`."""
    config = house.config
    trained = [group.trained(config.trains_on_unscored) for group in groups]
    attempts = [attempt for group in trained for attempt in group]
    metrics = {"attempts/trained": float(len(attempts))}
    if attempts and config.needs_old_policy:
        metrics["time/recall_s"] = await _recall(house, attempts)
    if attempts and config.scores_after_recall:
        metrics["time/score_s"] = await _score(house, batch, groups, progress)
    async with house.publisher.lock:
        started = time.monotonic()
        progress.enter("train")
        if attempts:
            measured = await house.gang.train(batch, trained)
            metrics |= {f"train/{name}": value for name, value in measured.items()}
        metrics["time/train_s"] = time.monotonic() - started
        await house.gang.update_teacher()
        metrics["time/update_teacher_s"] = time.monotonic() - started - metrics["time/train_s"]
        progress.enter("publish")
        return metrics | sync_metrics(await house.sync(version))


async def _recall(house: House, attempts: Sequence[AttemptRecord]) -> float:
    """Record the policy before the batch's first step. Returns seconds."""
    started = time.monotonic()
    async with house.publisher.lock:
        policies = await house.gang.recall(house.publisher.versions["policy"], attempts)
    for attempt, policy in zip(attempts, policies, strict=True):
        attempt.policy = policy
    return time.monotonic() - started


async def _score(house: House, batch: int, groups: Sequence[Group], progress: Progress) -> float:
    """Have all groups scored. The lock is free: a teacher that dies here needs it to come back. Returns seconds."""
    started, scorer = time.monotonic(), house.scorer
    assert scorer is not None

    async def score(group: Group) -> None:
        await scorer.score(group, house.teacher_version)
        progress.add("score", batch)

    async with asyncio.TaskGroup() as scoring:
        for group in groups:
            scoring.create_task(score(group))
    return time.monotonic() - started

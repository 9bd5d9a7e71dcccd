"""From a complete batch to new weights everywhere: old log-probs and late scores, optimizer steps, publication."""

import asyncio
import time
from collections.abc import Sequence

from orchestrator.actors.run_actors import RunActors
from orchestrator.batch.step_metrics import sync_metrics
from orchestrator.events import StageEntered, emit
from orchestrator.group import AttemptRecord, Group
from sdpo.types import Version


async def train_and_publish(
    actors: RunActors, batch_index: int, groups: Sequence[Group], version: Version
) -> dict[str, float]:
    """Train on `groups`, which are in the order of the batch, publish the result as `version`; return metrics.

    A batch in which no attempt has a signal takes no optimizer step, and its weights are published all the same.
    """
    config = actors.config
    trained = [group.trained(config.trains_on_unscored) for group in groups]
    attempts = [attempt for group in trained for attempt in group]
    metrics = {"attempts/trained": float(len(attempts))}
    if attempts and config.needs_old_policy:
        metrics["time/old_log_probs_s"] = await _compute_old_log_probs(actors, attempts)
    if attempts and config.scores_after_old_log_probs:
        metrics["time/score_s"] = await _score(actors, groups)
    async with actors.exclusive_weights():
        metrics |= await _train(actors, batch_index, trained)
        emit(StageEntered(stage="publish"))
        return metrics | sync_metrics(await actors.sync(version))


async def _compute_old_log_probs(actors: RunActors, attempts: Sequence[AttemptRecord]) -> float:
    """Record each attempt's log-probs under the policy before the batch's first step; return the seconds it took."""
    started_s = time.monotonic()
    async with actors.exclusive_weights():
        policies = await actors.gang.compute_old_log_probs(actors.publisher.versions["policy"], attempts)
    for attempt, policy in zip(attempts, policies, strict=True):
        attempt.policy = policy
    return time.monotonic() - started_s


async def _score(actors: RunActors, groups: Sequence[Group]) -> float:
    """Have the teachers score all groups; return the seconds it took.

    The weights stay free meanwhile: a teacher that dies here loads them before it is asked again.
    """
    started_s, scorer = time.monotonic(), actors.scorer
    assert scorer is not None
    async with asyncio.TaskGroup() as scoring:
        for group in groups:
            scoring.create_task(scorer.score(group, actors.teacher_version))
    return time.monotonic() - started_s


async def _train(actors: RunActors, batch_index: int, groups: Sequence[Sequence[AttemptRecord]]) -> dict[str, float]:
    """Take the optimizer steps of the batch and move the teacher's average; return the learner's metrics."""
    started_s = time.monotonic()
    emit(StageEntered(stage="train"))
    measured = await actors.gang.train(batch_index, groups) if any(groups) else {}
    trained_s = time.monotonic()
    await actors.gang.update_teacher()
    return {f"train/{name}": value for name, value in measured.items()} | {
        "time/train_s": trained_s - started_s,
        "time/update_teacher_s": time.monotonic() - trained_s,
    }

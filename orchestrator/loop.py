"""The loop, on one page.

Two tasks and one buffer. The producer starts batch n when the staleness gate opens and runs its groups through
sampling, judging and scoring; the consumer takes the finished groups, has the learner take its steps, publishes the
new weights and opens the gate. Whatever ends early, ends the run.
"""

import asyncio
import time

from orchestrator.failures import refuse_a_broken_world
from orchestrator.gate import StalenessGate
from orchestrator.group import Group
from orchestrator.house import House
from orchestrator.measure import batch_metrics, time_metrics
from orchestrator.pipeline import GroupPipeline
from orchestrator.producer import produce
from orchestrator.run_books import RunBooks
from orchestrator.spans import about
from orchestrator.task_source import TaskOrder
from orchestrator.telemetry import current
from orchestrator.update import update
from orchestrator.waits import within
from sdpo.config import RunConfig
from sdpo.types import Version


async def train(
    house: House,
    pipeline: GroupPipeline,
    tasks: TaskOrder,
    books: RunBooks,
    *,
    incarnation: int,
    steps_done: int,
    stop: asyncio.Event,
) -> int:
    """Train until `config.steps` batches are done or `stop` is set; returns the number of steps done."""
    config = house.config
    gate = StalenessGate(config.batch.max_staleness, steps_done)
    buffer: asyncio.Queue[Group] = asyncio.Queue(config.batch.tasks * (config.batch.max_staleness + 1))
    steps = range(steps_done, config.steps)
    async with asyncio.TaskGroup() as running:
        producer = running.create_task(produce(steps, tasks, pipeline, gate, lambda: house.teacher_version, buffer))
        current().watch_buffer(buffer.qsize)
        for batch in steps:
            about(step=batch + 1)
            started = time.monotonic()
            finished = [await _next_group(buffer, config) for _ in range(config.batch.tasks)]
            groups = sorted(finished, key=lambda group: group.index)
            collected = time.monotonic()
            metrics = batch_metrics(groups, advantage_is_signal=config.trains_on_unscored)
            errors = [a.verdict.infrastructure_error for g in groups for a in g.dropped]
            refuse_a_broken_world(metrics["attempts/dropped_fraction"], config, errors=errors)
            version = Version(incarnation=incarnation, batch=batch + 1)
            metrics |= await update(house, batch, groups, version, books.progress) | time_metrics(groups)
            steps_done = batch + 1
            metrics |= await books.evaluate_if_due(steps_done)
            if not stop.is_set():
                gate.publish(steps_done)
            metrics |= await house.envs.figures()
            metrics["time/collect_s"] = collected - started
            metrics["time/step_s"] = time.monotonic() - started
            await books.record(steps_done, groups, metrics)
            if stop.is_set():
                producer.cancel()
                break
    return steps_done


async def _next_group(buffer: asyncio.Queue[Group], config: RunConfig) -> Group:
    """Backstop: the waits inside the producer name the actor that is late long before this one ends."""
    deadlines = config.deadlines
    longest_s = deadlines.start_s + deadlines.weights_s + config.env.max_attempts * deadlines.environment_s
    longest_s += config.env.attempt_s
    longest_s += 2 * (deadlines.generate_s + deadlines.score_s)
    return await within(buffer.get(), actor="producer", stage="the next group", timeout_s=longest_s)

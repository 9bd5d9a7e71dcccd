"""The producer: starts batches as the staleness gate allows and hands finished groups to the consumer."""

import asyncio
from collections.abc import Callable, Iterable

from orchestrator.batch.pipeline import GroupPipeline
from orchestrator.events import GroupsQueued, emit
from orchestrator.group import Group
from orchestrator.inputs.task_source import TaskOrder
from orchestrator.telemetry.spans import bind_context
from sdpo.types import Task, Version


class StalenessGate:
    """Holds batch n back until the weights that batch n - 1 - max_staleness made are published everywhere.

    It is the only back-pressure between the producer of batches and the learner. With max_staleness 0 this is the
    synchronous loop: batch n is sampled by the weights that batch n - 1 made.
    """

    def __init__(self, max_staleness: int, published_batches: int) -> None:
        self._max_staleness = max_staleness
        self._published_batches = published_batches
        self._moved = asyncio.Event()

    async def wait(self, batch_index: int) -> None:
        """Return when batch `batch_index` may be sampled."""
        while batch_index - self._published_batches > self._max_staleness:
            self._moved.clear()
            await self._moved.wait()

    def publish(self, published_batches: int) -> None:
        """Note that `published_batches` batches have been trained on and their weights are served."""
        self._published_batches = published_batches
        self._moved.set()


async def produce(
    batch_indices: Iterable[int],
    tasks: TaskOrder,
    pipeline: GroupPipeline,
    gate: StalenessGate,
    teacher_version: Callable[[], Version],
    buffer: asyncio.Queue[Group],
) -> None:
    """Run every group of every batch through the pipeline, and put the groups into `buffer` as they are finished."""

    async def run(batch_index: int, index: int, task: Task) -> None:
        bind_context(step=batch_index + 1, task=task.id)
        await buffer.put(await pipeline.run(batch_index, index, task, teacher_version()))
        emit(GroupsQueued(num_groups=buffer.qsize()))

    for batch_index in batch_indices:
        await gate.wait(batch_index)
        batch = tasks.batch(batch_index)
        pipeline.source.expect([task.id for task in batch])
        async with asyncio.TaskGroup() as running:
            for index, task in enumerate(batch):
                running.create_task(run(batch_index, index, task))

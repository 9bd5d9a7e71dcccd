"""The producer: starts batches as the staleness gate allows and hands finished groups to the consumer."""

import asyncio
from collections.abc import Callable, Sequence

from orchestrator.gate import StalenessGate
from orchestrator.group import Group
from orchestrator.pipeline import GroupPipeline
from orchestrator.spans import about
from orchestrator.task_source import TaskOrder
from sdpo.types import Task, Version


async def produce(
    steps: Sequence[int],
    tasks: TaskOrder,
    pipeline: GroupPipeline,
    gate: StalenessGate,
    teacher_version: Callable[[], Version],
    buffer: asyncio.Queue[Group],
) -> None:
    """Run every group of every batch in `steps` through the pipeline."""

    async def run(step: int, index: int, task: Task) -> None:
        about(step=step + 1, task=task.id)
        await buffer.put(await pipeline.run(step, index, task, teacher_version()))

    for step in steps:
        await gate.wait(step)
        pipeline.source.expect([task.id for task in tasks.batch(step)])
        async with asyncio.TaskGroup() as batch:
            for index, task in enumerate(tasks.batch(step)):
                batch.create_task(run(step, index, task))

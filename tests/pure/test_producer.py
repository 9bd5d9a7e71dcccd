"""The producer of batches and its staleness gate."""

import asyncio
from typing import Any

import pytest

from orchestrator.batch.producer import StalenessGate, produce
from orchestrator.group import Group
from sdpo.types import Task, Version
from tests.fixtures.orchestrator import task_of

VERSION = Version(incarnation=1, batch=0)


@pytest.mark.parametrize("staleness", [0, 1, 3])
def test_gate_never_lets_a_batch_run_further_ahead_than_the_bound(staleness: int) -> None:
    async def scenario() -> list[tuple[int, int]]:
        gate, started, published = StalenessGate(staleness, 0), [], 0

        async def producer() -> None:
            for batch in range(10):
                await gate.wait(batch)
                started.append((batch, published))

        running = asyncio.create_task(producer())
        while published < 10:
            for _ in range(5):
                await asyncio.sleep(0)
            published += 1
            gate.publish(published)
        await asyncio.wait_for(running, 5)
        return started

    started = asyncio.run(scenario())
    assert [batch for batch, _ in started] == list(range(10))
    assert max(batch - published for batch, published in started) == staleness


class Pipeline:
    """Keeps what it was asked for; the groups of a batch end in reverse order."""

    def __init__(self) -> None:
        self.source = self
        self.events: list[Any] = []

    def expect(self, task_ids: list[str]) -> None:
        self.events.append(task_ids)

    async def run(self, batch_index: int, index: int, task: Task, version: Version) -> Group:
        await asyncio.sleep(0.01 * (2 - index))
        self.events.append((batch_index, index, task.id, version.batch))
        return Group(batch_index=batch_index, index=index, task=task, attempts=[])


class Tasks:
    """Two tasks a batch, named after it."""

    def batch(self, index: int) -> list[Task]:
        return [task_of(f"{index}-{letter}") for letter in "ab"]


def test_a_batch_is_announced_run_and_handed_over_before_the_next_one_begins() -> None:
    async def scenario() -> tuple[list[Any], list[int]]:
        pipeline, gate, buffer, published = Pipeline(), StalenessGate(0, 3), asyncio.Queue[Group](), 3
        source: Any = pipeline
        version = lambda: Version(incarnation=1, batch=published)  # noqa: E731
        producing = asyncio.create_task(produce(range(3, 5), Tasks(), source, gate, version, buffer))
        order = [(await buffer.get()).index for _ in range(2)]
        await asyncio.sleep(0.05)
        assert buffer.empty(), "the gate is closed"
        published = 4
        gate.publish(published)
        order += [(await buffer.get()).index for _ in range(2)]
        await asyncio.wait_for(producing, 5)
        return pipeline.events, order

    events, order = asyncio.run(scenario())
    assert events == [
        ["3-a", "3-b"],
        (3, 1, "3-b", 3),
        (3, 0, "3-a", 3),
        ["4-a", "4-b"],
        (4, 1, "4-b", 4),
        (4, 0, "4-a", 4),
    ]
    assert order == [1, 0, 1, 0], "a group is handed over when it is finished"


def test_a_group_that_fails_ends_the_producer() -> None:
    class Broken(Pipeline):
        async def run(self, batch_index: int, index: int, task: Task, version: Version) -> Group:
            raise RuntimeError(task.id)

    broken: Any = Broken()
    producing = produce(range(1), Tasks(), broken, StalenessGate(0, 0), lambda: VERSION, asyncio.Queue())
    with pytest.raises(ExceptionGroup) as raised:
        asyncio.run(producing)
    assert raised.group_contains(RuntimeError, match="0-a")

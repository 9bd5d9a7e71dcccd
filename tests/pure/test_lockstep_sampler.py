"""Deterministic sampling: the engines see one order, whatever the order in which requests are made or workers die."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from typing import Any

import numpy as np
import pytest

from orchestrator.actors.fleet import Fleet, Member
from orchestrator.actors.lockstep_sampler import LockstepSampler
from sdpo.errors import InfrastructureError
from sdpo.seeds import stable_index
from sdpo.types import GenerationRequest, SamplingParams
from tests.fixtures.fleets import supervised
from tests.fixtures.orchestrator import Ref, header_of

TASKS = [f"task-{i}" for i in range(9)]


class Engine:
    """A worker that keeps the calls it got; it dies after `lives` samples, if given."""

    def __init__(self, calls: list[list[str]], lives: int | None) -> None:
        self.generate_batch, self._calls, self._lives = self, calls, lives

    def options(self, **_: Any) -> "Engine":
        return self

    def remote(self, requests: Sequence[GenerationRequest]) -> AsyncIterator[Ref]:
        self._calls.append([f"{r.task_id}/{r.seeds[0]}" for r in requests])
        return self._serve(list(requests))

    async def _serve(self, requests: list[GenerationRequest]) -> AsyncIterator[Ref]:
        samples = [(r.task_id, i) for r in requests for i in r.sample_indices]
        random.shuffle(samples)
        for number, (task_id, index) in enumerate(samples):
            if number == self._lives:
                raise InfrastructureError("killed")
            yield Ref(header_of(task_id, index, versions=()))
            yield Ref((task_id, index))


def request(task_id: str, indices: tuple[int, ...] = (0, 1, 2)) -> GenerationRequest:
    return GenerationRequest(
        task_id=task_id,
        prompt_ids=np.zeros(1, np.int32),
        sample_indices=indices,
        seeds=tuple(10 + i for i in indices),
        sampling=SamplingParams(temperature=1.0, max_tokens=1),
        support_size=0,
    )


async def sampled(
    requests: list[GenerationRequest], expected: list[str], lives: list[int | None]
) -> tuple[dict[str, list[list[str]]], list[list[tuple[str, int]]]]:
    """The calls of each worker, and what each request got back, by request. lives: of the actors, as they are made."""
    calls: dict[str, list[list[str]]] = {}
    remaining = iter(lives)

    def spawn(name: str) -> Engine:
        return Engine(calls.setdefault(name.split("-r")[0], []), next(remaining, None))

    async def prepare(member: Member) -> None:
        await asyncio.sleep(0.001)

    async with asyncio.TaskGroup() as background:
        fleet = Fleet(
            "rollout",
            2,
            spawn=spawn,
            prepare=prepare,
            max_load=1,
            supervision=supervised(background),
        )
        await fleet.start()
        sampler = LockstepSampler(fleet, timeout_s=5)
        sampler.expect(expected)

        async def collect(wanted: GenerationRequest) -> list[tuple[str, int]]:
            await asyncio.sleep(random.random() / 100)
            found = []
            async for head, rollout in sampler.sample(wanted):
                assert rollout.value == (head.task_id, head.sample_index)
                found.append(rollout.value)
            return found

        async with asyncio.TaskGroup() as group:
            running = [group.create_task(collect(r)) for r in requests]
    return calls, [sorted(task.result()) for task in running]


@pytest.fixture(autouse=True)
def _no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.kill", lambda handle: None)


@pytest.mark.parametrize("lives", [[], [4], [None, 2], [1, 1, 2]], ids=["all live", "first dies", "second", "often"])
def test_every_call_is_a_whole_share_in_the_batchs_order_and_every_sample_arrives_once(lives: list[int | None]) -> None:
    requests = [request(task) for task in TASKS]
    random.shuffle(requests)
    calls, found = asyncio.run(sampled(requests, TASKS, lives))
    for number, name in enumerate(("rollout-0", "rollout-1")):
        share = [f"{task}/10" for task in TASKS if stable_index(task, 2) == number]
        assert share
        assert all(call == share for call in calls[name]), "also the call that makes up for a dead worker"
    assert sum(len(c) for c in calls.values()) == 2 + len([x for x in lives if x is not None])
    assert found == [[(r.task_id, i) for i in (0, 1, 2)] for r in requests]


def test_several_requests_for_one_task_are_told_apart_and_ordered_by_their_seeds() -> None:
    requests = [request("a", (2,)), request("b", (0,)), request("a", (0,))]
    calls, found = asyncio.run(sampled(requests, ["a", "b", "a"], []))
    together = [call for worker in calls.values() for call in worker]
    assert [name for call in together for name in call if name.startswith("a")] == ["a/10", "a/12"]
    assert found == [[("a", 2)], [("b", 0)], [("a", 0)]]


def test_a_request_that_was_not_announced_is_an_error() -> None:
    with pytest.raises(ExceptionGroup) as raised:
        asyncio.run(sampled([request("task-0"), request("stray")], ["task-0", "task-1"], []))
    assert raised.group_contains(InfrastructureError, match="task stray is not part of the batch", depth=2)


def test_a_worker_that_cannot_be_replaced_ends_the_batch() -> None:
    with pytest.raises(ExceptionGroup) as raised:
        asyncio.run(sampled([request(task) for task in TASKS], TASKS, [1, *[0] * 20]))
    assert raised.group_contains(InfrastructureError, match="failed 4 times")

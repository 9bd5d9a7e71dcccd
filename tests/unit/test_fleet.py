"""The fleet's state machine, with actors replaced by plain objects: who may serve, and when."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.failures import root_cause
from orchestrator.fleet import Fleet, Member
from sdpo.errors import InfrastructureError, LearnerDied, StageTimeout


@pytest.fixture(autouse=True)
def killed(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Handles that the fleet killed; the actors here are plain objects."""
    gone: list[Any] = []
    monkeypatch.setattr("ray.kill", gone.append)
    return gone


def make(group: asyncio.TaskGroup, size: int, prepare: Callable[[Member], Awaitable[None]], **options: Any) -> Fleet:
    settings: dict[str, Any] = {
        "max_load": 1,
        "max_restarts": 2,
        "lease_timeout_s": 0.2,
        "stacks": Path("unused"),
    } | options
    return Fleet("env", size, spawn=lambda name: object(), prepare=prepare, background=group, **settings)


async def at_once(member: Member) -> None:
    await asyncio.sleep(0)


def test_leases_go_to_the_least_loaded_and_wait_when_all_are_full() -> None:
    async def scenario() -> None:
        async with asyncio.TaskGroup() as group:
            fleet = make(group, 2, at_once)
            await fleet.start()
            async with fleet.lease() as a, fleet.lease() as b:
                assert a is not b
                with pytest.raises(StageTimeout, match="env did not finish becoming free"):
                    async with fleet.lease():
                        pass
            assert [m.load for m in fleet.members] == [0, 0]

    asyncio.run(scenario())


def test_calls_weigh_what_they_ask_for_and_enter_while_there_is_room() -> None:
    async def scenario() -> None:
        async with asyncio.TaskGroup() as group:
            fleet = make(group, 2, at_once, max_load=4)
            await fleet.start()
            async with fleet.lease(weight=3) as heavy, fleet.lease() as light, fleet.lease() as second:
                assert light is second is not heavy
                async with fleet.lease(only=heavy, weight=8):
                    assert heavy.load == 11
                    with pytest.raises(StageTimeout):
                        async with fleet.lease(only=heavy):
                            pass
            assert [m.load for m in fleet.members] == [0, 0]

    asyncio.run(scenario())


def test_a_member_that_fails_while_the_run_ends_does_not_hide_why_it_ends() -> None:
    async def scenario() -> None:
        async with asyncio.TaskGroup() as group:
            fleet = make(group, 1, at_once)
            await fleet.start()

            async def work() -> None:
                try:
                    await asyncio.sleep(60)
                finally:
                    fleet.report(fleet.members[0], fleet.members[0].handle, InfrastructureError("died"))

            group.create_task(work())
            await asyncio.sleep(0)
            raise ValueError("the reason")

    with pytest.raises(ExceptionGroup) as raised:
        asyncio.run(scenario())
    assert [str(error) for error in raised.value.exceptions] == ["the reason"]


def test_a_reported_member_serves_again_only_after_it_was_prepared(killed: list[Any]) -> None:
    async def scenario() -> None:
        may_finish = asyncio.Event()
        prepared: list[Any] = []

        async def prepare(member: Member) -> None:
            if prepared:
                await may_finish.wait()
            prepared.append(member.handle)

        async with asyncio.TaskGroup() as group:
            fleet = make(group, 1, prepare)
            await fleet.start()
            member, first = fleet.members[0], fleet.members[0].handle
            fleet.report(member, first, InfrastructureError("died"))
            fleet.report(member, first, InfrastructureError("said twice"))
            await asyncio.sleep(0.01)
            assert fleet.serving == []
            assert killed == [first]
            may_finish.set()
            async with fleet.lease() as again:
                assert again.handle is not first
            fleet.report(member, first, InfrastructureError("late news of the first actor"))
            assert fleet.serving == [member]
            assert fleet.num_restarts == 1

    asyncio.run(scenario())


def test_a_replacement_that_fails_before_it_serves_is_replaced_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.fleet.FIRST_PAUSE_S", 0.01)

    async def scenario() -> None:
        outcomes = iter([None, InfrastructureError("stillborn"), None])

        async def prepare(member: Member) -> None:
            await asyncio.sleep(0)
            if (failure := next(outcomes)) is not None:
                raise failure

        async with asyncio.TaskGroup() as group:
            fleet = make(group, 1, prepare)
            await fleet.start()
            fleet.report(fleet.members[0], fleet.members[0].handle, InfrastructureError("died"))
            async with fleet.lease() as member:
                assert member.restarts == 2

    asyncio.run(scenario())


def test_a_dead_learner_is_not_taken_for_a_failed_replacement() -> None:
    async def scenario() -> None:
        outcomes = iter([None, LearnerDied("rank 0 is gone")])

        async def prepare(member: Member) -> None:
            await asyncio.sleep(0)
            if (failure := next(outcomes)) is not None:
                raise failure

        async with asyncio.TaskGroup() as group:
            fleet = make(group, 1, prepare)
            await fleet.start()
            fleet.report(fleet.members[0], fleet.members[0].handle, InfrastructureError("died"))

    with pytest.raises(BaseExceptionGroup) as failure:
        asyncio.run(scenario())
    assert isinstance(root_cause(failure.value), LearnerDied)


def test_a_member_that_keeps_failing_ends_the_run() -> None:
    async def scenario() -> None:
        async with asyncio.TaskGroup() as group:
            fleet = make(group, 1, at_once, max_restarts=1)
            await fleet.start()
            for _ in range(2):
                async with fleet.lease() as member:
                    fleet.report(member, member.handle, InfrastructureError("boom"))
                await asyncio.sleep(0.01)

    with pytest.raises(BaseExceptionGroup) as failure:
        asyncio.run(scenario())
    assert "env-0 failed 2 times; last: boom" in str(failure.value.exceptions[0])


def test_a_retry_avoids_the_member_that_failed() -> None:
    async def scenario() -> None:
        async with asyncio.TaskGroup() as group:
            fleet = make(group, 2, at_once)
            await fleet.start()
            for member in fleet.members:
                async with fleet.lease(avoid=member.handle) as other:
                    assert other is not member

    asyncio.run(scenario())


def test_a_preferred_member_is_waited_for_while_it_lives() -> None:
    async def scenario() -> None:
        async with asyncio.TaskGroup() as group:
            fleet = make(group, 2, at_once, lease_timeout_s=5)
            await fleet.start()
            async with fleet.lease() as mine:
                first = mine.handle

                async def again() -> Any:
                    async with fleet.lease(prefer=first) as member:
                        return member.handle

                waiting = asyncio.create_task(again())
                await asyncio.sleep(0.02)
                assert not waiting.done()  # the other one is free
            assert await waiting is first
            async with fleet.lease(prefer=first) as mine:
                waiting = asyncio.create_task(again())
                await asyncio.sleep(0.02)
                fleet.report(mine, first, InfrastructureError("died"))
                assert await waiting is not first

    asyncio.run(scenario())

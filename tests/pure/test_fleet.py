"""The fleet's state machine, with actors replaced by plain objects: who may serve, and when."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from orchestrator.actors.fleet import Fleet, Member, Waiter
from orchestrator.failures import root_cause
from sdpo.errors import InfrastructureError, LearnerDied, StageTimeout
from tests.fixtures.fleets import supervised


@pytest.fixture(autouse=True)
def killed(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Handles that the fleet killed; the actors here are plain objects."""
    gone: list[Any] = []
    monkeypatch.setattr("ray.kill", gone.append)
    return gone


def make(group: asyncio.TaskGroup, size: int, prepare: Callable[[Member], Awaitable[None]], **options: Any) -> Fleet:
    max_load = options.pop("max_load", 1)
    supervision = supervised(group, **({"max_restarts": 2, "checkout_timeout_s": 0.2} | options))
    return Fleet("env", size, spawn=lambda name: object(), prepare=prepare, max_load=max_load, supervision=supervision)


async def at_once(member: Member) -> None:
    await asyncio.sleep(0)


def test_checkouts_go_to_the_least_loaded_and_wait_when_all_are_full() -> None:
    async def scenario() -> None:
        async with asyncio.TaskGroup() as group:
            fleet = make(group, 2, at_once)
            await fleet.start()
            async with fleet.checkout() as a, fleet.checkout() as b:
                assert a is not b
                with pytest.raises(StageTimeout, match="env did not finish becoming free"):
                    async with fleet.checkout():
                        pass
            assert [m.load for m in fleet.members] == [0, 0]

    asyncio.run(scenario())


def test_calls_weigh_what_they_ask_for_and_enter_below_the_limit() -> None:
    async def scenario() -> None:
        async with asyncio.TaskGroup() as group:
            fleet = make(group, 2, at_once, max_load=4)
            await fleet.start()
            async with fleet.checkout(weight=3) as heavy, fleet.checkout() as light, fleet.checkout() as second:
                assert light is second is not heavy
                async with fleet.checkout(only=heavy, weight=8):
                    assert heavy.load == 11
                    with pytest.raises(StageTimeout):
                        async with fleet.checkout(only=heavy):
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
            async with fleet.checkout() as again:
                assert again.handle is not first
            fleet.report(member, first, InfrastructureError("a late report of the first actor"))
            assert fleet.serving == [member]
            assert [m.starts for m in fleet.members] == [1]

    asyncio.run(scenario())


def test_a_replacement_that_fails_before_it_serves_is_replaced_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.actors.fleet.FIRST_PAUSE_S", 0.01)

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
            async with fleet.checkout() as member:
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
                async with fleet.checkout() as member:
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
                async with fleet.checkout(avoid=member.handle) as other:
                    assert other is not member

    asyncio.run(scenario())


def test_a_preferred_member_is_waited_for_while_it_lives() -> None:
    async def scenario() -> None:
        async with asyncio.TaskGroup() as group:
            fleet = make(group, 2, at_once, checkout_timeout_s=5)
            await fleet.start()
            async with fleet.checkout() as mine:
                first = mine.handle

                async def again() -> Any:
                    async with fleet.checkout(prefer=first) as member:
                        return member.handle

                waiting = asyncio.create_task(again())
                await asyncio.sleep(0.02)
                assert not waiting.done()  # the other one is free
            assert await waiting is first
            async with fleet.checkout(prefer=first) as mine:
                waiting = asyncio.create_task(again())
                await asyncio.sleep(0.02)
                fleet.report(mine, first, InfrastructureError("died"))
                assert await waiting is not first

    asyncio.run(scenario())


def test_callers_get_members_in_the_order_in_which_they_came() -> None:
    async def scenario() -> None:
        async with asyncio.TaskGroup() as group:
            fleet = make(group, 2, at_once, checkout_timeout_s=5)
            await fleet.start()
            served: list[int] = []

            async def call(number: int) -> None:
                async with fleet.checkout():
                    served.append(number)
                    await asyncio.sleep(0.001)

            async with asyncio.TaskGroup() as calls:
                for number in range(20):
                    calls.create_task(call(number))
            assert served == list(range(20))
            assert fleet.queue_length == 0
            assert [m.load for m in fleet.members] == [0, 0]

    asyncio.run(scenario())


def test_a_caller_that_gives_up_leaves_its_member_to_the_next() -> None:
    """Also when it is cancelled in the moment in which it was lent a member."""

    async def scenario(returns_first: bool) -> None:
        async with asyncio.TaskGroup() as group:
            fleet = make(group, 1, at_once, checkout_timeout_s=5)
            await fleet.start()

            async def call() -> str:
                async with fleet.checkout() as member:
                    return member.name

            async with fleet.checkout():
                given_up, patient = asyncio.create_task(call()), asyncio.create_task(call())
                await asyncio.sleep(0.01)
                if not returns_first:
                    given_up.cancel()
            given_up.cancel()
            assert await asyncio.wait_for(patient, 1) == "env-0"
            assert given_up.cancelled() or (await asyncio.gather(given_up, return_exceptions=True))
            assert fleet.members[0].load == 0

    for returns_first in (True, False):
        asyncio.run(scenario(returns_first))


def test_a_member_that_fails_after_it_was_lent_is_not_given_to_the_caller() -> None:
    async def scenario() -> None:
        async with asyncio.TaskGroup() as group:
            fleet = make(group, 1, at_once, checkout_timeout_s=5)
            await fleet.start()

            async def call() -> Any:
                async with fleet.checkout() as member:
                    return member.handle

            async with fleet.checkout() as member:
                first = member.handle
                waiting = asyncio.create_task(call())
                await asyncio.sleep(0.01)
            fleet.report(member, first, InfrastructureError("died"))  # lent, but the caller has not run yet
            assert await waiting is not first
            assert member.load == 0

    asyncio.run(scenario())


def test_a_return_costs_the_same_however_many_callers_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at = 0
    accepts = Waiter.accepts

    def counted(waiter: Waiter, member: Member) -> bool:
        nonlocal looked_at
        looked_at += 1
        return accepts(waiter, member)

    monkeypatch.setattr(Waiter, "accepts", counted)

    async def scenario() -> None:
        async with asyncio.TaskGroup() as group:
            fleet = make(group, 4, at_once, checkout_timeout_s=60)
            await fleet.start()

            async def call() -> None:
                async with fleet.checkout():
                    await asyncio.sleep(0)

            async with asyncio.TaskGroup() as calls:
                for _ in range(1000):
                    calls.create_task(call())

    asyncio.run(scenario())
    assert looked_at < 8 * 1000

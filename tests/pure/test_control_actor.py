"""The control actor without Ray: requests and the driver wait for each other, and a new actor learns what was seen."""

import asyncio

import pytest

from orchestrator.control.control_actor import NO_STOP, STOP, STOP_NOW, ControlActor


def test_a_stop_reaches_the_driver_at_once_and_returns_when_it_was_seen() -> None:
    async def scenario() -> None:
        actor = ControlActor()
        assert await actor.exchange(NO_STOP, 0.01) == NO_STOP, "nothing is asked"
        exchange = asyncio.create_task(actor.exchange(NO_STOP, 30.0))
        await asyncio.sleep(0)
        stop = asyncio.create_task(actor.stop(False, 30.0))
        async with asyncio.timeout(5):
            assert await exchange == STOP
            assert not stop.done(), "the driver has not said that it saw the request"
            await actor.exchange(STOP, 0.01)
            assert await stop
        assert await actor.stop(False, 0.01), "it was seen before"
        assert not await actor.stop(True, 0.01), "the driver has not seen this one"
        assert await actor.exchange(STOP, 30.0) == STOP_NOW

    asyncio.run(scenario())


@pytest.mark.parametrize("seen", [STOP, STOP_NOW])
def test_an_actor_that_was_started_again_takes_over_what_the_driver_saw(seen: int) -> None:
    async def scenario() -> None:
        actor = ControlActor()
        assert await actor.exchange(seen, 0.01) == seen
        assert await actor.stop(False, 0.01)
        assert await actor.stop(True, 0.01) is (seen == STOP_NOW)

    asyncio.run(scenario())

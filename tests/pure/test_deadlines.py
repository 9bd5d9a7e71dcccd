"""Waits end: by an answer, by their deadline, by a cancellation, whatever comes at the same time."""

import asyncio

import pytest

from orchestrator.telemetry.deadlines import with_deadline
from sdpo.errors import StageTimeout


def test_a_deadline_names_actor_and_stage() -> None:
    async def scenario() -> None:
        await with_deadline(asyncio.sleep(60), actor="rollout-0", stage="generate", timeout_s=0.01)

    with pytest.raises(StageTimeout, match=r"rollout-0 did not finish generate within 0\.01 s"):
        asyncio.run(scenario())


def test_a_cancellation_is_not_lost_to_an_answer_that_comes_with_it() -> None:
    async def scenario() -> None:
        answer = asyncio.get_running_loop().create_future()

        async def attend() -> None:
            await with_deadline(answer, actor="orchestrator", stage="exchange", timeout_s=60)
            await asyncio.sleep(60)

        attending = asyncio.create_task(attend())
        await asyncio.sleep(0)
        answer.set_result(None)
        attending.cancel()
        done, _ = await asyncio.wait({attending}, timeout=5)
        assert done, "it goes on"
        assert attending.cancelled()

    asyncio.run(scenario())

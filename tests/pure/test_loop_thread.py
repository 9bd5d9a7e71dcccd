"""Coroutines on the loop of another thread."""

import asyncio
import threading
from collections.abc import Iterator

import pytest

from rollout_workers.loop_thread import LoopThread


@pytest.fixture
def loop_thread() -> Iterator[LoopThread]:
    thread = LoopThread("engine")
    yield thread
    thread.stop()
    assert "engine" not in [t.name for t in threading.enumerate()]


async def where() -> str:
    await asyncio.sleep(0)
    return threading.current_thread().name


def test_callers_of_several_loops_meet_on_one(loop_thread: LoopThread) -> None:
    async def both() -> list[str]:
        return list(await asyncio.gather(loop_thread.run(where()), loop_thread.run(where())))

    assert [asyncio.run(both()) for _ in range(2)] == [["engine", "engine"]] * 2


def test_an_error_reaches_the_caller(loop_thread: LoopThread) -> None:
    async def fail() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        asyncio.run(loop_thread.run(fail()))


def test_a_cancelled_wait_cancels_the_coroutine(loop_thread: LoopThread) -> None:
    cancelled = threading.Event()

    async def endless() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async def give_up() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(loop_thread.run(endless()), 0.05)

    asyncio.run(give_up())
    assert cancelled.wait(5)

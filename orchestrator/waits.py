"""Every wait on an actor has a deadline that names the actor and the stage, and leaves a span (see spans.py)."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from typing import Any, TypeVar

from orchestrator.spans import calling
from sdpo.errors import StageTimeout

T = TypeVar("T")


async def within(wait: Awaitable[T], *, actor: str, stage: str, timeout_s: float) -> T:
    """Await a Ray reference or a coroutine; raises `StageTimeout` after `timeout_s`."""
    with calling(actor, stage):
        return await part_within(wait, actor=actor, stage=stage, timeout_s=timeout_s)


async def part_within(wait: Awaitable[T], *, actor: str, stage: str, timeout_s: float) -> T:
    """As `within`, for a part of a call that has its span already."""
    try:
        async with asyncio.timeout(timeout_s):  # unlike wait_for, it never loses a cancellation to an answer
            return await wait
    except TimeoutError:
        raise StageTimeout(actor, stage, timeout_s) from None


async def stream_within(refs: AsyncIterator[Any], *, actor: str, stage: str, timeout_s: float) -> AsyncIterator[Any]:
    """Yield the references of a streaming actor call; the deadline holds for each next one."""
    with calling(actor, stage):
        while True:
            try:
                ref = await part_within(anext(refs), actor=actor, stage=stage, timeout_s=timeout_s)
            except StopAsyncIteration:
                return
            yield ref

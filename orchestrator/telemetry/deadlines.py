"""Waits for actors with a deadline that names actor and stage; each wait is a call of the run (see spans.py)."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from typing import Any, TypeVar

from orchestrator.telemetry.spans import calling
from sdpo.errors import StageTimeout

T = TypeVar("T")


async def with_deadline(wait: Awaitable[T], *, actor: str, stage: str, timeout_s: float) -> T:
    """Await a Ray reference or a coroutine. Raises `StageTimeout` after `timeout_s`."""
    with calling(actor, stage):
        return await part_with_deadline(wait, actor=actor, stage=stage, timeout_s=timeout_s)


async def part_with_deadline(wait: Awaitable[T], *, actor: str, stage: str, timeout_s: float) -> T:
    """As `with_deadline`, for a part of a call that is counted already."""
    try:
        async with asyncio.timeout(timeout_s):  # unlike wait_for, it never loses a cancellation to an answer
            return await wait
    except TimeoutError:
        raise StageTimeout(actor, stage, timeout_s) from None


async def stream_with_deadline(
    refs: AsyncIterator[Any], *, actor: str, stage: str, timeout_s: float
) -> AsyncIterator[Any]:
    """Yield the references of a streaming actor call; the deadline holds for each next one."""
    with calling(actor, stage):
        while True:
            try:
                ref = await part_with_deadline(anext(refs), actor=actor, stage=stage, timeout_s=timeout_s)
            except StopAsyncIteration:
                return
            yield ref

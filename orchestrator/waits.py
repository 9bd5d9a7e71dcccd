"""Every wait on an actor has a deadline that names the actor and the stage."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from typing import Any, TypeVar

from sdpo.errors import StageTimeout

T = TypeVar("T")


async def within(wait: Awaitable[T], *, actor: str, stage: str, timeout_s: float) -> T:
    """Await a Ray reference or a coroutine; raises `StageTimeout` after `timeout_s`."""
    try:
        return await asyncio.wait_for(_as_coroutine(wait), timeout_s)
    except TimeoutError:
        raise StageTimeout(actor, stage, timeout_s) from None


async def stream_within(refs: AsyncIterator[Any], *, actor: str, stage: str, timeout_s: float) -> AsyncIterator[Any]:
    """Yield the references of a streaming actor call; the deadline holds for each next one."""
    while True:
        try:
            ref = await within(anext(refs), actor=actor, stage=stage, timeout_s=timeout_s)
        except StopAsyncIteration:
            return
        yield ref


async def _as_coroutine(wait: Awaitable[T]) -> T:
    return await wait

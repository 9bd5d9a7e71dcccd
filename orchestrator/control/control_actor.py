"""The actor named `orchestrator`, through which a run can be stopped from anywhere in its cluster.

It keeps a request to stop until the driver has seen it, and decides nothing. It lives on the driver's node, in the
namespace of run and incarnation, and ends with the driver. When it dies alone, Ray starts it again, the driver repeats
what it has seen, and the run continues (see `control_client`). This module imports the standard library only, because
the actor's process starts with it.
"""

import asyncio
from collections.abc import Callable
from typing import Any

NAME = "orchestrator"
NO_STOP, STOP, STOP_NOW = range(3)
"""Requests, from the weakest: none; end at the next batch boundary with a checkpoint; end without waiting for it."""


class ControlActor:
    """Its methods `exchange` (the driver's) and `stop` (other processes') wait for each other, with a deadline."""

    def __init__(self) -> None:
        self._requested = self._seen = NO_STOP
        self._changed = asyncio.Condition()

    def __repr__(self) -> str:
        """Return `orchestrator`, the actor's name in Ray's lists and logs."""
        return NAME

    async def exchange(self, seen: int, wait_s: float) -> int:
        """For the driver: return the strongest request as soon as it is above `seen`, or after `wait_s` seconds."""
        self._seen, self._requested = seen, max(seen, self._requested)
        await self._wait_for(lambda: self._requested > seen, wait_s)
        return self._requested

    async def stop(self, now: bool, wait_s: float) -> bool:
        """Ask the run to end; return whether its driver saw the request within `wait_s` seconds."""
        request = STOP_NOW if now else STOP
        self._requested = max(request, self._requested)
        return await self._wait_for(lambda: self._seen >= request, wait_s)

    async def _wait_for(self, condition: Callable[[], bool], wait_s: float) -> bool:
        """Announce a change, then wait for the condition; return whether it holds."""
        async with self._changed:
            self._changed.notify_all()
            try:
                await asyncio.wait_for(self._changed.wait_for(condition), wait_s)
            except TimeoutError:
                return False
        return True


def control_actor_options(node_id: str) -> dict[str, Any]:
    """Return Ray's options of the actor on the node with this id: no CPUs, started again as often as it dies."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    pinned = NodeAffinitySchedulingStrategy(node_id=node_id, soft=False)
    return {"num_cpus": 0, "max_restarts": -1, "max_concurrency": 64, "scheduling_strategy": pinned}

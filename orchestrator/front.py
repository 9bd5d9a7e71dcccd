"""The actor named `orchestrator`: where a cluster asks what a run does, and asks it to stop.

It knows what the driver told it last and keeps what others ask for until the driver has heard it; it decides nothing.
It lives on the driver's node, in the namespace of run and incarnation, and goes with the driver. When it dies alone,
Ray starts it again and the driver tells it everything anew: the run goes on (see `orchestrator.front_desk`).
This module imports the standard library only: the actor's process starts with it.
"""

import asyncio
from typing import Any, TypedDict

NAME = "orchestrator"


class Status(TypedDict):
    """What `Front.status` answers."""

    run: str
    """The run's name."""
    dir: str
    """The run directory, as the driver sees it."""
    incarnation: int
    step: int
    """Steps that are done."""
    steps: int
    """Steps that the run file asks for."""
    stage: str
    """What the driver does now: starting, one of `orchestrator.progress_state.Stage`, collect, stopping."""
    reward: float | None
    """Mean reward of the last step; None before the first."""
    version: str | None
    """The weight version that the last step published; None before the first."""
    last_error: str | None
    """The last warning or error that the driver logged, on one line."""
    updated_s: float
    """When the driver said this, seconds since 1970 on its clock. Older than some seconds: the driver hangs."""


class Asked(TypedDict):
    """What was asked of the run so far."""

    stop: bool
    """End at the next batch boundary, with a checkpoint."""
    now: bool
    """End without waiting for the boundary."""


class Front:
    """All methods answer at once, but `exchange` and `stop`, which wait for each other with a deadline."""

    def __init__(self, status: Status) -> None:
        self._status = status
        self._asked = Asked(stop=False, now=False)
        self._changed, self._heard = asyncio.Event(), asyncio.Event()

    def __repr__(self) -> str:
        """`orchestrator`: Ray keeps what it is at first, and no call of it fails in the middle of something."""
        return NAME

    async def status(self) -> Status:
        """The latest that the driver said."""
        return self._status

    async def exchange(self, status: Status, heard: Asked, wait_s: float) -> Asked:
        """For the driver: takes its status, answers what is asked as soon as that differs from `heard`, or in time."""
        self._status = status
        self._asked = Asked(stop=self._asked["stop"] or heard["stop"], now=self._asked["now"] or heard["now"])
        if self._asked == heard:
            self._heard.set()
            await self._wait(self._changed, wait_s)
        return self._asked

    async def stop(self, now: bool, wait_s: float) -> bool:
        """Ask the run to end; whether its driver has heard it within `wait_s`. Asking again changes nothing."""
        asked = Asked(stop=True, now=now or self._asked["now"])
        if asked != self._asked:
            self._asked = asked
            self._heard.clear()
            self._changed.set()
        return await self._wait(self._heard, wait_s)

    async def _wait(self, event: asyncio.Event, wait_s: float) -> bool:
        try:
            await asyncio.wait_for(event.wait(), wait_s)
        except TimeoutError:
            return False
        finally:
            if event is self._changed:
                event.clear()
        return True


def front_options(node_id: str) -> dict[str, Any]:
    """Ray's options of the actor on the node with this id: no CPUs, started again as often as it dies."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    pinned = NodeAffinitySchedulingStrategy(node_id=node_id, soft=False)
    return {"num_cpus": 0, "max_restarts": -1, "max_concurrency": 64, "scheduling_strategy": pinned}

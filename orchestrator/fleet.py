"""A fleet: the interchangeable actors of one role, supervised.

Members: who is serving, how loaded it is, how often it was started again. A member that died or failed is replaced
by a new actor, which serves only after `prepare` (load, weights, audit) has succeeded. More than `max_restarts`
replacements of one member end the run.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import ActorPlacementGroupRemoved, ActorUnschedulableError, RayActorError

from orchestrator.failures import one_line
from orchestrator.stacks import dump_stacks
from orchestrator.telemetry import current
from sdpo.errors import InfrastructureError, LearnerDied, StageTimeout

log = logging.getLogger(__name__)

ACTOR_FAILURES = (RayActorError, ActorUnschedulableError, ActorPlacementGroupRemoved, InfrastructureError)
"""What a call of an actor raises when the actor, its node or a part of the system under it is broken."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 10.0


class Member:
    """One actor of a fleet. `load` is the sum of the weights of the calls that it is serving."""

    def __init__(self, name: str, handle: Any = None) -> None:
        self.name, self.handle = name, handle
        self.load = self.starts = self.restarts = 0
        """`starts`: replacements so far; `restarts`: those of them that count against `max_restarts`."""
        self.serving = self.retiring = False
        """A retiring member does not serve; the actor's sessions may end on it."""
        self.sessions: set[str] = set()
        """Attempts of several turns whose state this actor holds."""

    @property
    def actor_name(self) -> str:
        """The present actor's; the names of a member's actors differ."""
        return self.name if self.starts == 0 else f"{self.name}-r{self.starts}"

    @property
    def may_continue(self) -> bool:
        """Whether attempts that began here may go on here."""
        return self.serving or self.retiring


class Waiting:
    """A caller that waits for a lease. `bound`: one particular member, which lives, is to take it."""

    def __init__(self) -> None:
        self.since_s = time.monotonic()
        self.bound = False


class Fleet:
    """Leases members to callers, the least loaded first, and replaces those that are reported."""

    def __init__(
        self,
        role: str,
        size: int,
        *,
        spawn: Callable[[str], Any],
        prepare: Callable[[Member], Awaitable[None]],
        max_load: int,
        max_restarts: int,
        lease_timeout_s: float,
        stacks: Path,
        background: asyncio.TaskGroup,
    ) -> None:
        """`spawn(name)` makes an actor; `prepare(member)` makes it fit to serve.

        `stacks`: the folder for the stacks of members that were too late, written before they are killed.
        """
        self.role = role
        self._spawn, self._prepare = spawn, prepare
        self._max_load, self._max_restarts, self._lease_timeout_s = max_load, max_restarts, lease_timeout_s
        self._stacks, self._background = stacks, background
        self._changed = asyncio.Condition()
        self._waiting: list[Waiting] = []
        self._tasks = dict[asyncio.Task[None], Member | None]()
        self.members = list[Member]()
        for index in range(size):
            self._add(f"{role}-{index}")

    async def start(self) -> None:
        """Prepare all members; the first failure is raised."""
        async with asyncio.TaskGroup() as group:
            for member in self.members:
                group.create_task(self._admit(member))

    @property
    def serving(self) -> list[Member]:
        return [m for m in self.members if m.serving]

    @property
    def places(self) -> list[str]:
        """Names of the members that there are now; the actor of a place changes when it is replaced."""
        return [m.name for m in self.members]

    @property
    def states(self) -> dict[str, int]:
        """Members that are serving, pending and draining."""
        return {"serving": len(self.serving), "pending": len(self.members) - len(self.serving), "draining": 0}

    @property
    def queue_length(self) -> int:
        """Callers that wait for a lease."""
        return len(self._waiting)

    @property
    def num_restarts(self) -> int:
        """Of the members that there are now."""
        return sum(m.starts for m in self.members)

    @asynccontextmanager
    async def lease(
        self, *, avoid: Any = None, prefer: Any = None, only: Member | None = None, weight: int = 1
    ) -> AsyncIterator[Member]:
        """The least loaded serving member, if possible not the one whose handle is `avoid`; or only this one.

        While the actor with the handle `prefer` lives, that one and no other, even when it is full for now. `weight`
        is the load that the call will be; a member takes calls as long as its load is below its limit.
        """
        member = await self._take(avoid, prefer, only, weight)
        handle = member.handle
        try:
            yield member
        finally:
            if member.handle is handle:
                member.load -= weight
            async with self._changed:
                self._changed.notify_all()

    def report(self, member: Member, handle: Any, error: BaseException) -> None:
        """`handle` died or failed: replace it in the background. Later reports of the same handle change nothing."""
        if member.handle is not handle or not member.serving:
            return
        member.serving = False
        log.warning("%s failed and is started again: %s", member.name, one_line(error))
        self._run(self._replace(member, error), member)

    def doubt(self, member: Member, handle: Any, why: str) -> None:
        """`handle` answered that something under it broke; a fleet may look after it before it goes on."""

    async def figures(self) -> dict[str, float]:
        """For the metrics of a step."""
        return {}

    def end_session(self, attempt: str) -> None:
        """Whoever holds a session of this attempt need not keep it."""
        for member in self.members:
            member.sessions.discard(attempt)

    def kill(self) -> None:
        """End every actor of the fleet, and what it does in the background."""
        for task in list(self._tasks):
            task.cancel()
        for member in list(self.members):
            self._dismiss(member)

    def _add(self, name: str) -> Member:
        member = Member(name)
        self._employ(member)
        self.members.append(member)
        return member

    def _employ(self, member: Member) -> None:
        """Give the member a new actor."""
        member.load = 0
        member.sessions.clear()
        member.handle = self._spawn(member.actor_name)

    def _dismiss(self, member: Member) -> None:
        """End the member's actor."""
        ray.kill(member.handle)

    def _run(self, work: Coroutine[Any, Any, None], member: Member | None) -> None:
        """In the background, for one member or for all, until the fleet ends; an error ends the run.

        A run that is ending starts nothing any more: what ends it is not to be hidden behind asyncio's refusal.
        """
        try:
            task = self._background.create_task(work)
        except RuntimeError:
            work.close()
            return
        self._tasks[task] = member
        task.add_done_callback(self._tasks.pop)

    def _demand_changed(self) -> None:
        """Called when somebody begins to wait for a lease."""

    def _leased(self, wait_s: float) -> None:
        """Called when somebody got a lease after `wait_s`."""
        current().waited(self.role, wait_s)

    async def _counts(self, member: Member, error: BaseException) -> bool:
        """Whether this failure counts against `max_restarts`."""
        return True

    async def _take(self, avoid: Any, prefer: Any, only: Member | None, weight: int) -> Member:
        waiting = Waiting()

        def pick() -> Member | None:
            able = [m for m in self.members if m.serving and only in (None, m)]
            bound = [] if prefer is None else [m for m in self.members if m.handle is prefer and m.may_continue]
            waiting.bound = bool(bound)
            free = [m for m in bound or able if m.load < self._max_load]
            return min(free, key=lambda m: (m.handle is avoid, m.load), default=None)

        self._waiting.append(waiting)
        self._demand_changed()
        try:
            async with self._changed:
                try:
                    await asyncio.wait_for(self._changed.wait_for(lambda: pick() is not None), self._lease_timeout_s)
                except TimeoutError:
                    raise StageTimeout(self.role, "becoming free", self._lease_timeout_s) from None
                member = pick()
                assert member is not None
                member.load += weight
        finally:
            self._waiting.remove(waiting)
        self._leased(time.monotonic() - waiting.since_s)
        return member

    async def _admit(self, member: Member) -> None:
        await self._prepare(member)
        log.info("%s serves", member.actor_name)
        async with self._changed:
            member.serving = True
            self._changed.notify_all()

    async def _replace(self, member: Member, error: BaseException) -> None:
        """Spawn and prepare until one serves; a replacement that fails before it serves counts as a restart, too.

        The first replacement comes at once; before each further one there is a pause, so that an engine that is
        started again has the time for it.
        """
        pause_s = 0.0
        while not member.serving:
            counts = await self._counts(member, error)
            member.restarts += counts
            current().replaced(self.role, error, node_lost=not counts)
            if isinstance(error, StageTimeout):
                await asyncio.to_thread(dump_stacks, self._stacks / f"{member.name}-{member.starts + 1}")
            if member.restarts > self._max_restarts:
                raise InfrastructureError(f"{member.name} failed {member.restarts} times; last: {one_line(error)}")
            self._dismiss(member)
            await asyncio.sleep(pause_s)
            pause_s = min(LONGEST_PAUSE_S, max(FIRST_PAUSE_S, 2 * pause_s))
            member.starts += 1
            self._employ(member)
            try:
                await self._admit(member)
            except LearnerDied:
                raise
            except ACTOR_FAILURES as failure:
                error = failure

"""A fleet: the interchangeable actors of one role, supervised.

Members: who is serving, how loaded it is, how often it was started again. A member that died or failed is replaced
by a new actor, which serves only after `prepare` (load, weights, audit) has succeeded. More than `max_restarts`
replacements of one member end the run.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayActorError

from orchestrator.failures import one_line
from orchestrator.stacks import dump_stacks
from sdpo.errors import InfrastructureError, LearnerDied, StageTimeout

log = logging.getLogger(__name__)


class Member:
    """One actor of a fleet. `load` counts the calls that it is serving."""

    def __init__(self, name: str, handle: Any) -> None:
        self.name, self.handle = name, handle
        self.load = self.restarts = 0
        self.serving = False


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
        self.members = [Member(f"{role}-{i}", spawn(f"{role}-{i}")) for i in range(size)]

    async def start(self) -> None:
        """Prepare all members; the first failure is raised."""
        async with asyncio.TaskGroup() as group:
            for member in self.members:
                group.create_task(self._admit(member))

    @property
    def serving(self) -> list[Member]:
        return [m for m in self.members if m.serving]

    @property
    def num_restarts(self) -> int:
        return sum(m.restarts for m in self.members)

    @asynccontextmanager
    async def lease(
        self, *, avoid: Any = None, prefer: Any = None, only: Member | None = None
    ) -> AsyncIterator[Member]:
        """The least loaded serving member, if possible not the one whose handle is `avoid`; or only this one.

        While the actor with the handle `prefer` serves, that one and no other, even when it is full for now.
        """
        member = await self._take(avoid, prefer, only)
        handle = member.handle
        try:
            yield member
        finally:
            if member.handle is handle:
                member.load -= 1
            async with self._changed:
                self._changed.notify_all()

    def report(self, member: Member, handle: Any, error: BaseException) -> None:
        """`handle` died or failed: replace it in the background. Later reports of the same handle change nothing."""
        if member.handle is not handle or not member.serving:
            return
        member.serving = False
        log.warning("%s failed and is started again: %s", member.name, one_line(error))
        self._background.create_task(self._replace(member, error))

    def kill(self) -> None:
        """End every actor of the fleet."""
        for member in self.members:
            ray.kill(member.handle)

    async def _take(self, avoid: Any, prefer: Any, only: Member | None) -> Member:
        def pick() -> Member | None:
            able = [m for m in self.members if m.serving and only in (None, m)]
            able = [m for m in able if prefer is not None and m.handle is prefer] or able
            free = [m for m in able if m.load < self._max_load]
            return min(free, key=lambda m: (m.handle is avoid, m.load), default=None)

        async with self._changed:
            try:
                await asyncio.wait_for(self._changed.wait_for(lambda: pick() is not None), self._lease_timeout_s)
            except TimeoutError:
                raise StageTimeout(self.role, "becoming free", self._lease_timeout_s) from None
            member = pick()
            assert member is not None
            member.load += 1
            return member

    async def _admit(self, member: Member) -> None:
        await self._prepare(member)
        async with self._changed:
            member.serving = True
            self._changed.notify_all()

    async def _replace(self, member: Member, error: BaseException) -> None:
        """Spawn and prepare until one serves; a replacement that fails before it serves counts as a restart, too."""
        while not member.serving:
            member.restarts += 1
            if isinstance(error, StageTimeout):
                await asyncio.to_thread(dump_stacks, self._stacks / f"{member.name}-{member.restarts}")
            if member.restarts > self._max_restarts:
                raise InfrastructureError(f"{member.name} failed {member.restarts} times; last: {one_line(error)}")
            ray.kill(member.handle)
            member.handle = self._spawn(f"{member.name}-r{member.restarts}")
            member.load = 0
            try:
                await self._admit(member)
            except LearnerDied:
                raise
            except (RayActorError, InfrastructureError) as failure:
                error = failure

"""A fleet: the interchangeable actors of one role, supervised.

A member that died or failed is replaced by a new actor, which serves only after `prepare` (load, weights, audit) has
succeeded. More than `max_restarts` replacements of one member end the run.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import ActorPlacementGroupRemoved, ActorUnschedulableError, OutOfMemoryError, RayActorError

from orchestrator.events import ActorReplaced, MemberCheckedOut, emit
from orchestrator.failures import one_line
from orchestrator.telemetry.stacks import dump_stacks
from sdpo.errors import InfrastructureError, LearnerDied, StageTimeout

log = logging.getLogger(__name__)

ACTOR_FAILURES = (
    RayActorError,
    OutOfMemoryError,
    ActorUnschedulableError,
    ActorPlacementGroupRemoved,
    InfrastructureError,
)
"""Errors of a call whose actor, its node or a part of the system under it is broken."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Supervision:
    """How the fleets of a run supervise their members."""

    max_restarts: int
    """Replacements of one member before the run ends."""
    checkout_timeout_s: float
    """For a member to become free for a caller."""
    stacks: Path
    """Folder for the stacks of members that missed a deadline, written before they are killed."""
    background: asyncio.TaskGroup
    """Runs the replacements; an error in it ends the run."""


class Member:
    """One actor of a fleet. `load` is the sum of the weights of the calls that it is serving."""

    def __init__(self, name: str, handle: Any = None) -> None:
        self.name, self.handle = name, handle
        self.load = self.starts = self.restarts = 0
        """`starts`: replacements so far; `restarts`: those that count against `max_restarts`."""
        self.serving = self.retiring = False
        """A retiring member takes no new attempts; attempts with a session on it may go on there."""
        self.sessions: set[str] = set()
        """Names of the attempts of several turns whose state this actor holds."""

    @property
    def actor_name(self) -> str:
        """Name of the present actor; each replacement of a member has a name of its own."""
        return self.name if self.starts == 0 else f"{self.name}-r{self.starts}"

    @property
    def may_continue(self) -> bool:
        """Whether attempts that began on this member may go on there."""
        return self.serving or self.retiring


class Waiter:
    """A caller that waits for a member (see `Fleet.checkout`)."""

    def __init__(self, *, avoid: Any, prefer: Any, preferred: Member | None, only: Member | None, weight: int) -> None:
        """`preferred`: the member whose actor is `prefer`."""
        self.since_s = time.monotonic()
        self.avoid, self.only, self.weight = avoid, only, weight
        self._prefer, self._preferred = prefer, preferred
        self.granted = asyncio.get_running_loop().create_future()
        """Becomes the member and its actor's handle when the member was lent to this caller."""

    @property
    def bound(self) -> bool:
        """Whether it waits for the one member that it prefers, which is alive."""
        return self._preferred is not None and self._preferred.handle is self._prefer and self._preferred.may_continue

    def accepts(self, member: Member) -> bool:
        """Return whether the member can serve this caller, however loaded it is."""
        if self.bound:
            return member is self._preferred
        return member.serving and self.only in (None, member)


class Fleet:
    """Lends members to callers, the least loaded first, and replaces members that are reported as failed.

    A member that has become free is handed to the caller that has waited longest, so that a return costs the same
    however many callers wait. Invariant: no caller waits while a member below `max_load` could serve it.
    """

    def __init__(
        self,
        role: str,
        size: int,
        *,
        spawn: Callable[[str], Any],
        prepare: Callable[[Member], Awaitable[None]],
        max_load: int,
        supervision: Supervision,
    ) -> None:
        """`spawn(name)` creates an actor; `prepare(member)` returns when it can serve.

        A member takes calls as long as its load is below `max_load`.
        """
        self.role = role
        self._spawn, self._prepare = spawn, prepare
        self._max_load, self._supervision = max_load, supervision
        self._changed = asyncio.Condition()
        """Notified when a member begins to serve."""
        self._waiters = dict[Waiter, None]()
        """In the order in which they came."""
        self._total_load = 0
        self._tasks = dict[asyncio.Task[None], Member | None]()
        self.members = list[Member]()
        for index in range(size):
            self._add(f"{role}-{index}")

    async def start(self) -> None:
        """Prepare all members; raises the first failure."""
        async with asyncio.TaskGroup() as group:
            for member in self.members:
                group.create_task(self._admit(member))

    @property
    def serving(self) -> list[Member]:
        return [m for m in self.members if m.serving]

    @property
    def member_names(self) -> list[str]:
        """Names of the present members; a member keeps its name when its actor is replaced."""
        return [m.name for m in self.members]

    @property
    def states(self) -> dict[str, int]:
        """Number of members that are serving, pending and draining."""
        return {"serving": len(self.serving), "pending": len(self.members) - len(self.serving), "draining": 0}

    @property
    def queue_length(self) -> int:
        """Number of callers that wait for a member."""
        return len(self._waiters)

    @asynccontextmanager
    async def checkout(
        self, *, avoid: Any = None, prefer: Any = None, only: Member | None = None, weight: int = 1
    ) -> AsyncIterator[Member]:
        """Borrow the least loaded serving member for the block, if possible not the one whose handle is `avoid`.

        `only`: no other member than this one. `prefer`: while the actor with this handle is alive, no other member,
        even if it is full now. `weight`: the load of the call. Raises `StageTimeout` where no member becomes free.
        """
        member, handle = await self._take(avoid, prefer, only, weight)
        try:
            yield member
        finally:
            self._return(member, handle, weight)

    def report(self, member: Member, handle: Any, error: BaseException) -> None:
        """Replace `handle`, which failed, in the background. Later reports of the same handle change nothing."""
        if member.handle is not handle or not member.serving:
            return
        member.serving = False
        self._serve_waiters()
        log.warning("%s failed and is started again: %s", member.name, one_line(error))
        self._run(self._replace(member, error), member)

    def suspect(self, member: Member, handle: Any, reason: str) -> None:
        """Note that `handle` answered that something under it broke; a fleet may check it before it serves again."""

    async def figures(self) -> dict[str, float]:
        """Return metrics of the step."""
        return {}

    def end_session(self, attempt: str) -> None:
        """Forget which member holds the session of this attempt."""
        for member in self.members:
            member.sessions.discard(attempt)

    def kill(self) -> None:
        """End every actor of the fleet and its background work."""
        for task in list(self._tasks):
            task.cancel()
        for member in list(self.members):
            self._end_actor(member)

    def _add(self, name: str) -> Member:
        member = Member(name)
        self._start_actor(member)
        self.members.append(member)
        return member

    def _start_actor(self, member: Member) -> None:
        """Create a new actor for the member."""
        self._total_load -= member.load
        member.load = 0
        member.sessions.clear()
        member.handle = self._spawn(member.actor_name)

    def _end_actor(self, member: Member) -> None:
        """End the member's actor."""
        ray.kill(member.handle)

    def _run(self, work: Coroutine[Any, Any, None], member: Member | None) -> None:
        """Run `work` in the background, for one member or for all, until the fleet ends; an error ends the run.

        A run that is ending starts no work: asyncio's refusal must not hide the error that ends the run.
        """
        try:
            task = self._supervision.background.create_task(work)
        except RuntimeError:
            work.close()
            return
        self._tasks[task] = member
        task.add_done_callback(self._tasks.pop)

    def _demand_changed(self) -> None:
        """Called when a caller begins to wait for a member."""

    def _checked_out(self, wait_s: float) -> None:
        """Called when a caller got a member after `wait_s`."""
        emit(MemberCheckedOut(role=self.role, wait_s=wait_s))

    async def _is_restart(self, member: Member, error: BaseException) -> bool:
        """Return whether this failure counts against `max_restarts`."""
        return True

    async def _take(self, avoid: Any, prefer: Any, only: Member | None, weight: int) -> tuple[Member, Any]:
        """Return a member that was lent to the caller, and its actor. Raises as `checkout`."""
        preferred = None if prefer is None else next((m for m in self.members if m.handle is prefer), None)
        waiter = Waiter(avoid=avoid, prefer=prefer, preferred=preferred, only=only, weight=weight)
        timeout_s = self._supervision.checkout_timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                member, handle = await self._wait(waiter)
        except TimeoutError:
            raise StageTimeout(self.role, "becoming free", timeout_s) from None
        self._checked_out(time.monotonic() - waiter.since_s)
        return member, handle

    async def _wait(self, waiter: Waiter) -> tuple[Member, Any]:
        self._waiters[waiter] = None
        self._demand_changed()
        while True:
            if (free := self._least_loaded(waiter)) is not None:
                self._grant(waiter, free)
            try:
                member, handle = await waiter.granted
            except BaseException:
                self._waiters.pop(waiter, None)
                if waiter.granted.done() and not waiter.granted.cancelled():
                    member, handle = waiter.granted.result()
                    self._return(member, handle, waiter.weight)
                raise
            if member.handle is handle and member.may_continue:
                return member, handle
            # The member failed after it was lent and before the caller could go on: the caller waits as the first.
            self._return(member, handle, waiter.weight)
            waiter.granted = asyncio.get_running_loop().create_future()
            self._waiters = {waiter: None} | self._waiters

    def _least_loaded(self, waiter: Waiter) -> Member | None:
        """Return the least loaded member that can serve the caller now, if possible not the one to avoid."""
        best: Member | None = None
        avoided: Member | None = None
        lowest_load = self._max_load
        for member in self.members:
            if member.load >= lowest_load or not waiter.accepts(member):
                continue
            if member.handle is waiter.avoid:
                avoided = member
                continue
            best, lowest_load = member, member.load
            if lowest_load == 0:
                break
        return best or avoided

    def _grant(self, waiter: Waiter, member: Member) -> None:
        del self._waiters[waiter]
        member.load += waiter.weight
        self._total_load += waiter.weight
        waiter.granted.set_result((member, member.handle))

    def _return(self, member: Member, handle: Any, weight: int) -> None:
        """Take back a member that was lent, and lend it to whom it can serve next."""
        if member.handle is handle:
            member.load -= weight
            self._total_load -= weight
        self._offer(member)

    def _offer(self, member: Member) -> None:
        """Lend the member to the callers that have waited longest, until it is full."""
        while member.load < self._max_load:
            waiter = next((w for w in self._waiters if not w.granted.done() and w.accepts(member)), None)
            if waiter is None:
                return
            self._grant(waiter, member)

    def _serve_waiters(self) -> None:
        """Lend every member: a caller that was bound to one member may now be served by others."""
        if self._waiters:
            for member in sorted(self.members, key=lambda m: m.load):
                self._offer(member)

    async def _admit(self, member: Member) -> None:
        await self._prepare(member)
        log.info("%s serves", member.actor_name)
        async with self._changed:
            member.serving = True
            self._changed.notify_all()
        self._offer(member)

    async def _replace(self, member: Member, error: BaseException) -> None:
        """Start new actors until one serves; a replacement that fails before it serves counts as a restart, too.

        The first replacement starts at once, each further one after a pause, so that an engine under it has time to
        restart.
        """
        pause_s = 0.0
        while not member.serving:
            counts = await self._is_restart(member, error)
            member.restarts += counts
            emit(ActorReplaced(role=self.role, error=error, node_lost=not counts))
            if isinstance(error, StageTimeout):
                await asyncio.to_thread(dump_stacks, self._supervision.stacks / f"{member.name}-{member.starts + 1}")
            if member.restarts > self._supervision.max_restarts:
                raise InfrastructureError(
                    f"{member.name} failed {member.restarts} times; last: {one_line(error)}"
                ) from error
            self._end_actor(member)
            await asyncio.sleep(pause_s)
            pause_s = min(LONGEST_PAUSE_S, max(FIRST_PAUSE_S, 2 * pause_s))
            member.starts += 1
            self._start_actor(member)
            try:
                await self._admit(member)
            except LearnerDied:
                raise
            except ACTOR_FAILURES as failure:
                error = failure

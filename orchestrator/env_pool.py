"""The env pool: a fleet that grows when attempts wait and shrinks when it was larger than needed.

Nobody else notices: callers lease as from any fleet. A member is pending (no node has room for it, or it is starting),
serving, draining (no new attempts; those of several turns that it holds may end), gone.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from ray.exceptions import ActorUnavailableError, RayError

from orchestrator.failures import one_line
from orchestrator.fleet import ACTOR_FAILURES, FIRST_PAUSE_S, LONGEST_PAUSE_S, Fleet, Member
from orchestrator.room import Room, describe
from orchestrator.sizing import Sizing
from orchestrator.waits import within
from sdpo.config import EnvConfig, EnvPlacement
from sdpo.errors import InfrastructureError, SandboxUnavailable, StageTimeout

log = logging.getLogger(__name__)

DRAIN_S = 60.0
"""How long attempts of several turns may go on in a draining member; afterwards they are replayed elsewhere."""
CLOSE_S = 10.0
"""For an env worker to end its sandboxes before it is killed, and to say what it counted."""
SICK_S = 120.0
"""For the engine under an env worker to come back before the worker is started again."""
NOTICE_S = 5.0
"""Members without room for so long are reported, once."""
NODE_NEWS_S = 60.0
"""How long after its actors could not be reached Ray may say that a node is dead; by default it takes up to 30 s."""


class EnvPool(Fleet):
    """Between `placement.env.min_workers` and `placement.env.max_workers` env workers.

    It grows by as many as the attempts need that have waited for longer than `env.target_wait_s`. It shrinks to the
    most that was needed within the last `env.idle_s`, pending members first. A node's loss does not count against
    `max_restarts`: whoever lived there is replaced, and is pending until a node has room.
    """

    def __init__(
        self,
        config: EnvConfig,
        placement: EnvPlacement,
        run: str,
        *,
        spawn: Callable[[str, Room], Any],
        prepare: Callable[[Member], Awaitable[None]],
        max_restarts: int,
        lease_timeout_s: float,
        stacks: Path,
        background: asyncio.TaskGroup,
    ) -> None:
        """`run` names the run and its incarnation; `spawn(name, room)` makes an actor in that room."""
        self._config, self._placement, self._namespace, self._spawn_in = config, placement, run, spawn
        self._sizing, self._waits_s = Sizing(config, placement, time.monotonic()), list[float]()
        self._rooms = dict[str, Room]()
        self._pending_since_s = dict[Member, float]()
        self._leaving = set[Member]()
        self._tick_s = max(0.02, min(0.25, config.target_wait_s / 4, config.idle_s / 4))
        self._is_open = self._noticed = False
        self._recycled = dict[str, int]()
        super().__init__(
            "env",
            placement.min_workers,
            spawn=self._spawn_with_room,
            prepare=prepare,
            max_load=self._sizing.attempts_per_worker,
            max_restarts=max_restarts,
            lease_timeout_s=lease_timeout_s,
            stacks=stacks,
            background=background,
        )
        self._next_index = placement.min_workers

    async def start(self) -> None:
        """Returns when `placement.env.min_workers` serve. Until then any failure is raised, but for a node's loss."""
        for member in self.members:
            self._run(self._bring_up(member), member)
        self._run(self._govern(), None)
        wanted = self._placement.min_workers
        try:
            async with self._changed:
                enough = self._changed.wait_for(lambda: len(self.serving) >= wanted)
                async with asyncio.timeout(self._lease_timeout_s):
                    await enough
        except TimeoutError:
            raise InfrastructureError(
                f"{len(self.serving)} of {wanted} env workers serve after {self._lease_timeout_s:g} s; {self._wish()}"
            ) from None
        self._is_open = True

    def report(self, member: Member, handle: Any, error: BaseException) -> None:
        """As of any fleet; a draining member is not replaced."""
        if member.handle is handle and member.retiring:
            member.retiring = False
        super().report(member, handle, error)

    def doubt(self, member: Member, handle: Any, why: str) -> None:
        """It takes no attempts until its sandboxes work again: attempts wait while an engine is started again."""
        if member.handle is handle and member.serving:
            member.serving = False
            log.warning("%s takes no attempts until its sandbox works: %s", member.name, why.partition("\n")[0])
            self._run(self._examine(member), member)

    @property
    def states(self) -> dict[str, int]:
        """Members that are serving, pending and draining."""
        serving, draining = len(self.serving), len(self._leaving)
        return {"serving": serving, "pending": len(self.members) - serving - draining, "draining": draining}

    async def figures(self) -> dict[str, float]:
        """For the metrics of a step: waits and sandboxes thrown away since the last call, and the pool's size now."""
        before = sum(self._recycled.values())
        await asyncio.gather(*(self._ask_counts(member) for member in self.serving))
        waits_s, self._waits_s = self._waits_s or [0.0], []
        return {
            "time/env_wait_s": sum(waits_s) / len(waits_s),
            "time/env_longest_wait_s": max(waits_s),
            "time/env_pool_size": float(len(self.serving)),
            "time/sandboxes_recycled": float(sum(self._recycled.values()) - before),
        }

    async def _govern(self) -> None:
        """Resize for as long as the fleet lives."""
        while True:
            await asyncio.sleep(self._tick_s)
            self._demand_changed()
            self._grow()
            self._shrink()
            self._notice()

    def _grow(self) -> None:
        now_s = time.monotonic()
        waits_s = [now_s - waiting.since_s for waiting in self._waiting if not waiting.bound]
        states = self.states
        for _ in range(self._sizing.missing(waits_s, states["pending"], len(self.members) - states["draining"])):
            if (kept := next((m for m in self._leaving if m.retiring), None)) is not None:
                self._keep(kept)
            else:
                member = self._add(f"env-{self._next_index}")
                self._next_index += 1
                self._run(self._bring_up(member), member)

    def _shrink(self) -> None:
        active = [m for m in self.members if m not in self._leaving]
        free = [m for m in active if m.serving or m.load == 0]
        for _ in range(min(len(free), self._sizing.surplus(time.monotonic(), len(active)))):
            member = min(free, key=self._worth)
            free.remove(member)
            if member.serving:
                member.serving, member.retiring = False, True
                self._leaving.add(member)
                self._run(self._drain(member), None)
            else:
                self._cancel(member)

    def _worth(self, member: Member) -> tuple[bool, bool, int, int]:
        """Order of leaving: without room, starting, then those nearly alone on their node, so that it may go, too."""
        node = self._node(member)
        neighbours = sum(self._node(m) == node for m in self.members)
        return member.serving, node is not None, neighbours, member.load + len(member.sessions)

    def _node(self, member: Member) -> str | None:
        return self._rooms[member.actor_name].node_id if member.actor_name in self._rooms else None

    def _keep(self, member: Member) -> None:
        """A draining member serves again."""
        member.serving, member.retiring = True, False
        self._leaving.discard(member)
        self._run(self._tell(), None)

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    def _cancel(self, member: Member) -> None:
        for task, whose in list(self._tasks.items()):
            if whose is member:
                task.cancel()
        self._forget(member)

    async def _drain(self, member: Member) -> None:
        """Wait for what runs in it, end it. Whoever holds a lease has a deadline of its own."""
        began_s = time.monotonic()
        while member.load > 0 or (member.retiring and member.sessions):
            if time.monotonic() - began_s > DRAIN_S:
                member.retiring = False
                await self._tell()
            await asyncio.sleep(self._tick_s)
            if member.serving:
                return
        if member.serving:
            return
        member.retiring = False
        try:
            await self._ask_counts(member)
            with contextlib.suppress(RayError, StageTimeout):  # it is killed anyway
                await within(member.handle.close.remote(), actor=member.name, stage="close", timeout_s=CLOSE_S)
        finally:
            self._leaving.discard(member)
            self._forget(member)

    def _forget(self, member: Member) -> None:
        self._pending_since_s.pop(member, None)
        self.members.remove(member)
        self._dismiss(member)

    async def _examine(self, member: Member) -> None:
        try:
            await self._until_it_works(member)
        except ACTOR_FAILURES as error:
            await self._replace(member, error)

    async def _until_it_works(self, member: Member) -> None:
        """Admit it when the canary lives. Before the start that is now or never; later an engine may be on its way."""
        until_s, pause_s = time.monotonic() + SICK_S, FIRST_PAUSE_S
        while True:
            try:
                await super()._admit(member)
                return
            except StageTimeout:
                raise
            except (InfrastructureError, SandboxUnavailable) as error:
                if not self._is_open:
                    raise
                if time.monotonic() > until_s:
                    raise InfrastructureError(one_line(error)) from error
            await asyncio.sleep(pause_s)
            pause_s = min(LONGEST_PAUSE_S, 2 * pause_s)

    async def _bring_up(self, member: Member) -> None:
        try:
            await self._admit(member)
        except ACTOR_FAILURES as error:
            if not self._is_open and not self._rooms[member.actor_name].is_lost():
                raise
            await self._replace(member, error)

    async def _admit(self, member: Member) -> None:
        """As in any fleet, once a node has room; how long that takes is nobody's failure."""
        room = self._rooms[member.actor_name]
        self._pending_since_s[member] = time.monotonic()
        await room.find()
        del self._pending_since_s[member]
        await self._until_it_works(member)

    def _spawn_with_room(self, name: str) -> Any:
        room = self._rooms[name] = Room(f"{self._namespace}/{name}", self._placement)
        return self._spawn_in(name, room)

    def _dismiss(self, member: Member) -> None:
        super()._dismiss(member)
        if (room := self._rooms.pop(member.actor_name, None)) is not None:
            room.give_back()

    async def _counts(self, member: Member, error: BaseException) -> bool:
        """Every failure but the loss of the node."""
        room = self._rooms[member.actor_name]
        if isinstance(error, ActorUnavailableError):
            await self._wait_for_news(member, room)
        return not room.is_lost()

    async def _wait_for_news(self, member: Member, room: Room) -> None:
        """Ray finds out what a broken connection meant: the node is gone, the actor is, or neither."""
        until_s = time.monotonic() + NODE_NEWS_S
        while not room.is_lost() and (left_s := until_s - time.monotonic()) > 0:
            try:
                await within(member.handle.__ray_ready__.remote(), actor=member.name, stage="news", timeout_s=left_s)
            except ActorUnavailableError:
                await asyncio.sleep(self._tick_s)
            except (RayError, StageTimeout):
                return
            else:
                return

    def _demand_changed(self) -> None:
        self._sizing.observe(time.monotonic(), len(self._waiting) + sum(m.load for m in self.members))

    def _leased(self, wait_s: float) -> None:
        super()._leased(wait_s)
        self._waits_s.append(wait_s)

    def _notice(self) -> None:
        since_s = min(self._pending_since_s.values(), default=None)
        is_long = since_s is not None and time.monotonic() - since_s > NOTICE_S
        if is_long and not self._noticed:
            log.warning("%s", self._wish())
        self._noticed = is_long

    def _wish(self) -> str:
        names = ", ".join(sorted(m.name for m in self._pending_since_s)) or "nobody"
        room = describe(self._placement.request)
        return f"waiting for a node with {room} free: {names}"

    async def _ask_counts(self, member: Member) -> None:
        """What a member counted since it was asked last is lost with it."""
        name = member.actor_name
        with contextlib.suppress(RayError, StageTimeout):
            counts = await within(member.handle.counts.remote(), actor=name, stage="counts", timeout_s=CLOSE_S)
            self._recycled[name] = counts["recycled"]

"""The env pool: a fleet of env workers that grows when attempts wait and shrinks when it was larger than needed.

Callers use it like any other fleet. A member is pending (no node has its resources free, or it is starting), serving,
or draining (it takes no new attempts; those of several turns on it may end), and then it is removed.
"""

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from ray.exceptions import ActorUnavailableError, RayError

from orchestrator.actors.env_pool_size import Sizing
from orchestrator.actors.fleet import ACTOR_FAILURES, FIRST_PAUSE_S, LONGEST_PAUSE_S, Fleet, Member, Supervision
from orchestrator.cluster.reservation import ActorSlot, describe
from orchestrator.failures import one_line
from orchestrator.telemetry.deadlines import with_deadline
from sdpo.config import EnvConfig, EnvPlacement
from sdpo.errors import InfrastructureError, SandboxUnavailable, StageTimeout

log = logging.getLogger(__name__)

DRAIN_S = 60.0
"""For attempts of several turns to end on a draining member; afterwards they are replayed on another one."""
CLOSE_S = 10.0
"""For an env worker to end its sandboxes, or to return its counts, before it is killed."""
RECOVERY_S = 120.0
"""For the container engine under an env worker to recover before the worker is replaced."""
PENDING_WARNING_S = 5.0
"""Members that have waited for resources for longer are named in a warning, once."""
NODE_STATE_S = 60.0
"""For Ray to decide whether a node is dead after an actor on it could not be reached; by default up to 30 s."""


class EnvPool(Fleet):
    """Between `placement.env.min_workers` and `placement.env.max_workers` env workers.

    It grows by as many workers as the attempts need that have waited for longer than `env.target_wait_s`. It shrinks to
    the most that was needed within the last `env.idle_s`, pending members first. The loss of a node does not count
    against `max_restarts`: the members on it are replaced, and are pending until another node has the resources.
    """

    def __init__(
        self,
        config: EnvConfig,
        placement: EnvPlacement,
        namespace: str,
        *,
        spawn: Callable[[str, ActorSlot], Any],
        prepare: Callable[[Member], Awaitable[None]],
        supervision: Supervision,
    ) -> None:
        """`namespace`: the run and its incarnation; `spawn(name, slot)` creates an actor on the resources of `slot`."""
        self._config, self._placement, self._namespace, self._spawn_in_slot = config, placement, namespace, spawn
        self._sizing, self._waits_s = Sizing(config, placement, time.monotonic()), list[float]()
        self._slots = dict[str, ActorSlot]()
        self._most_attempts = 0
        """Most attempts that ran or waited at a time since the pool's size was last looked at."""
        self._pending_since_s = dict[Member, float]()
        self._draining = set[Member]()
        self._tick_s = max(0.02, min(0.25, config.target_wait_s / 4, config.idle_s / 4))
        self._is_open = self._has_warned = False
        self._recycled = dict[str, int]()
        super().__init__(
            "env",
            placement.min_workers,
            spawn=self._spawn_with_slot,
            prepare=prepare,
            max_load=self._sizing.attempts_per_worker,
            supervision=supervision,
        )
        self._next_index = placement.min_workers

    async def start(self) -> None:
        """Return when `placement.env.min_workers` serve. Raises any failure until then, except the loss of a node."""
        for member in self.members:
            self._run(self._bring_up(member), member)
        self._run(self._resize_until_closed(), None)
        wanted, timeout_s = self._placement.min_workers, self._supervision.checkout_timeout_s
        try:
            async with self._changed:
                enough = self._changed.wait_for(lambda: len(self.serving) >= wanted)
                async with asyncio.timeout(timeout_s):
                    await enough
        except TimeoutError:
            raise InfrastructureError(
                f"{len(self.serving)} of {wanted} env workers serve after {timeout_s:g} s; {self._pending_text()}"
            ) from None
        self._is_open = True

    def report(self, member: Member, handle: Any, error: BaseException) -> None:
        """As of any fleet, but a draining member is not replaced."""
        if member.handle is handle and member.retiring:
            member.retiring = False
            self._serve_waiters()
        super().report(member, handle, error)

    def suspect(self, member: Member, handle: Any, reason: str) -> None:
        """Pause the member until its sandboxes work again: attempts wait while a container engine restarts."""
        if member.handle is handle and member.serving:
            member.serving = False
            self._serve_waiters()
            log.warning("%s is paused until its sandbox recovers: %s", member.name, reason.partition("\n")[0])
            self._run(self._recover(member), member)

    @property
    def states(self) -> dict[str, int]:
        """Number of members that are serving, pending and draining."""
        serving, draining = len(self.serving), len(self._draining)
        return {"serving": serving, "pending": len(self.members) - serving - draining, "draining": draining}

    async def figures(self) -> dict[str, float]:
        """Return waits and sandboxes thrown away since the last call, and the pool's size now."""
        before = sum(self._recycled.values())
        await asyncio.gather(*(self._update_recycled(member) for member in self.serving))
        waits_s, self._waits_s = self._waits_s or [0.0], []
        return {
            "time/env_wait_s": sum(waits_s) / len(waits_s),
            "time/env_longest_wait_s": max(waits_s),
            "time/env_pool_size": float(len(self.serving)),
            "time/sandboxes_recycled": float(sum(self._recycled.values()) - before),
        }

    async def _resize_until_closed(self) -> None:
        while True:
            await asyncio.sleep(self._tick_s)
            self._demand_changed()
            self._sizing.observe(time.monotonic(), self._most_attempts)
            self._most_attempts = 0
            self._grow()
            self._shrink()
            self._warn_of_pending()

    def _grow(self) -> None:
        now_s = time.monotonic()
        waits_s = [now_s - waiter.since_s for waiter in self._waiters if not waiter.bound]
        states = self.states
        for _ in range(self._sizing.missing(waits_s, states["pending"], len(self.members) - states["draining"])):
            if (member := next((m for m in self._draining if m.retiring), None)) is not None:
                member.serving, member.retiring = True, False
                self._draining.discard(member)
                self._offer(member)
            else:
                member = self._add(f"env-{self._next_index}")
                self._next_index += 1
                self._run(self._bring_up(member), member)

    def _shrink(self) -> None:
        """Remove the workers that were not needed lately.

        Workers without resources go first, then starting ones, then serving ones; among these, node by node, those on
        the emptiest node first, so that whole nodes become free.
        """
        active = [m for m in self.members if m not in self._draining]
        num_surplus = self._sizing.surplus(time.monotonic(), len(active))
        if num_surplus == 0:
            return
        num_on_node = Counter(self._node(m) for m in self.members)

        def removal_order(member: Member) -> tuple[bool, bool, int, str, int]:
            node = self._node(member)
            load = member.load + len(member.sessions)
            return member.serving, node is not None, num_on_node[node], node or "", load

        removable = sorted((m for m in active if m.serving or m.load == 0), key=removal_order)[:num_surplus]
        unready = {m for m in removable if not m.serving}
        for task in [task for task, owner in self._tasks.items() if owner in unready]:
            task.cancel()
        for member in removable:
            if member in unready:
                self._remove(member)
            else:
                member.serving, member.retiring = False, True
                self._draining.add(member)
                self._run(self._drain(member), None)

    def _node(self, member: Member) -> str | None:
        return self._slots[member.actor_name].node_id if member.actor_name in self._slots else None

    async def _drain(self, member: Member) -> None:
        """Wait for the calls and sessions on the member, then remove it. Each call has a deadline of its own."""
        began_s = time.monotonic()
        while member.load > 0 or (member.retiring and member.sessions):
            if time.monotonic() - began_s > DRAIN_S:
                member.retiring = False
                self._serve_waiters()
            await asyncio.sleep(self._tick_s)
            if member.serving:
                return
        if member.serving:
            return
        member.retiring = False
        try:
            await self._update_recycled(member)
            with contextlib.suppress(RayError, StageTimeout):  # it is killed anyway
                await with_deadline(member.handle.close.remote(), actor=member.name, stage="close", timeout_s=CLOSE_S)
        finally:
            self._draining.discard(member)
            self._remove(member)

    def _remove(self, member: Member) -> None:
        self._pending_since_s.pop(member, None)
        self.members.remove(member)
        self._end_actor(member)

    async def _recover(self, member: Member) -> None:
        try:
            await self._admit_when_it_works(member)
        except ACTOR_FAILURES as error:
            await self._replace(member, error)

    async def _admit_when_it_works(self, member: Member) -> None:
        """Admit the member when its test program runs. Once the pool is open, an engine has time to recover."""
        until_s, pause_s = time.monotonic() + RECOVERY_S, FIRST_PAUSE_S
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
            if not self._is_open and not self._slots[member.actor_name].is_lost():
                raise
            await self._replace(member, error)

    async def _admit(self, member: Member) -> None:
        """As in any fleet, once a node has the resources; waiting for a node does not count as a failure."""
        slot = self._slots[member.actor_name]
        self._pending_since_s[member] = time.monotonic()
        await slot.wait_placed()
        del self._pending_since_s[member]
        await self._admit_when_it_works(member)

    def _spawn_with_slot(self, name: str) -> Any:
        slot = self._slots[name] = ActorSlot(f"{self._namespace}/{name}", self._placement)
        return self._spawn_in_slot(name, slot)

    def _end_actor(self, member: Member) -> None:
        super()._end_actor(member)
        if (slot := self._slots.pop(member.actor_name, None)) is not None:
            slot.release()

    async def _is_restart(self, member: Member, error: BaseException) -> bool:
        """Return True for every failure but the loss of the node."""
        slot = self._slots[member.actor_name]
        if isinstance(error, ActorUnavailableError):
            await self._wait_for_node_state(member, slot)
        return not slot.is_lost()

    async def _wait_for_node_state(self, member: Member, slot: ActorSlot) -> None:
        """Wait until Ray knows what a broken connection meant: the node is dead, the actor is, or neither."""
        until_s = time.monotonic() + NODE_STATE_S
        while not slot.is_lost() and (left_s := until_s - time.monotonic()) > 0:
            try:
                call = member.handle.__ray_ready__.remote()
                await with_deadline(call, actor=member.name, stage="reconnect", timeout_s=left_s)
            except ActorUnavailableError:
                await asyncio.sleep(self._tick_s)
            except (RayError, StageTimeout):
                return
            else:
                return

    def _demand_changed(self) -> None:
        self._most_attempts = max(self._most_attempts, len(self._waiters) + self._total_load)

    def _checked_out(self, wait_s: float) -> None:
        super()._checked_out(wait_s)
        self._waits_s.append(wait_s)

    def _warn_of_pending(self) -> None:
        since_s = min(self._pending_since_s.values(), default=None)
        is_long = since_s is not None and time.monotonic() - since_s > PENDING_WARNING_S
        if is_long and not self._has_warned:
            log.warning("%s", self._pending_text())
        self._has_warned = is_long

    def _pending_text(self) -> str:
        names = ", ".join(sorted(m.name for m in self._pending_since_s)) or "none"
        return f"waiting for a node with {describe(self._placement.request)} free: {names}"

    async def _update_recycled(self, member: Member) -> None:
        """Read the member's count of sandboxes thrown away; what it counts later is lost if it dies."""
        name = member.actor_name
        with contextlib.suppress(RayError, StageTimeout):
            counts = await with_deadline(member.handle.counts.remote(), actor=name, stage="counts", timeout_s=CLOSE_S)
            self._recycled[name] = counts["recycled"]

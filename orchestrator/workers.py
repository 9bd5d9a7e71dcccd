"""Whoever samples and judges: rollout workers and env workers, supervised. They need no learner.

Without one they serve the weights of `model.path`; the house (see house.py) gives them the learner's.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from env_workers.travel import Luggage
from orchestrator.env_pool import EnvPool
from orchestrator.fleet import Fleet, Member
from orchestrator.lockstep import make_sampler
from orchestrator.placement import Placement
from orchestrator.room import Reservation
from orchestrator.rooms import Rooms, index_of
from orchestrator.waits import within
from rollout_workers.worker import RolloutActor
from sdpo.config import RunConfig
from sdpo.errors import InfrastructureError


class Workers:
    """Start with `start_fleets`, leave with `close`. Where nothing is sampled both fleets are empty."""

    def __init__(
        self, config: RunConfig, namespace: str, luggage: Luggage, *, stacks: Path, background: asyncio.TaskGroup
    ) -> None:
        """`namespace`: of all actors, unlike that of any other run in the cluster. `stacks`: the folder for stacks."""
        self.config = config
        self._stacks, self._background = stacks, background
        self._places = Placement(namespace)
        self._rooms = {role: self._rooms_of(role) for role in ("rollout", "teacher")}
        engines, sequences = config.placement.rollout.workers, config.rollout.max_num_seqs
        sampling = config.samples
        self.rollouts = (
            self._fleet("rollout", engines, sequences, self._prepare_rollout) if sampling else self._nobody("rollout")
        )
        self.sampler = make_sampler(config, self.rollouts)
        self.envs = self._env_pool(luggage) if sampling else self._nobody("env")

    @property
    def fleets(self) -> list[Fleet]:
        """All that there are."""
        return [self.rollouts, self.envs]

    async def start_fleets(self) -> None:
        """Bring everybody up; the first failure is raised."""
        async with asyncio.TaskGroup() as group:
            for fleet in self.fleets:
                group.create_task(fleet.start())

    def close(self) -> None:
        """End every actor, and give back what was reserved for it."""
        for fleet in self.fleets:
            fleet.kill()
        for rooms in self._rooms.values():
            rooms.close()

    def _env_pool(self, luggage: Luggage) -> Fleet:
        return EnvPool(
            self.config.env,
            self.config.placement.env,
            self._places.namespace,
            spawn=partial(self._places.spawn_env, self.config.env, luggage),
            prepare=self._prepare_env,
            **self._supervision(),
        )

    def _nobody(self, role: str) -> Fleet:
        """A fleet without members."""

        def spawn(name: str) -> Any:
            raise InfrastructureError(f"{name}: nothing is sampled in this run")

        return Fleet(role, 0, spawn=spawn, prepare=self._prepare_env, max_load=1, **self._supervision())

    def _fleet(self, role: str, size: int, max_load: int, prepare: Any) -> Fleet:
        spawn = getattr(self, f"_spawn_{role}")
        return Fleet(role, size, spawn=spawn, prepare=prepare, max_load=max_load, **self._supervision())

    def _supervision(self) -> dict[str, Any]:
        return {
            "max_restarts": self.config.max_worker_restarts,
            "lease_timeout_s": self.config.deadlines.start_s + self.config.deadlines.generate_s,
            "stacks": self._stacks,
            "background": self._background,
        }

    def _spawn_rollout(self, name: str) -> Any:
        room = self._rooms["rollout"].take(name)
        return self._places.spawn(RolloutActor, name, self.config, index_of(name), **room.options)

    async def _prepare_rollout(self, member: Member) -> None:
        """It serves `model.path`, as `Version(incarnation=0, batch=0)`."""
        await self._find_room(member)
        await self._start(member, "start")

    async def _find_room(self, member: Member) -> None:
        role = member.name.partition("-")[0]
        await self._rooms[role].find(member.actor_name, self.config.deadlines.start_s)

    def _rooms_of(self, role: str) -> Rooms:
        return Rooms(self._places.namespace, self.config.placement.of(role), self._shared(role))

    def _shared(self, role: str) -> Callable[[int], tuple[Reservation, int]] | None:
        """The reservation and bundle of each member, where the role lives in another one's."""
        return None

    async def _prepare_env(self, member: Member) -> None:
        await self._start(member, "ready")

    async def _start(self, member: Member, method: str, *arguments: Any) -> None:
        wait = getattr(member.handle, method).remote(*arguments)
        await within(wait, actor=member.name, stage=method, timeout_s=self.config.deadlines.start_s)

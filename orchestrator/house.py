"""The house: every actor of a run, who they are and how they come up.

The orchestrator (this process) knows all of them; they do not know each other. Rollout workers, env workers and
teachers are fleets whose members may die and be replaced; the learner is a gang that lives and dies as one.
"""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ray

from env_workers.travel import Luggage
from learner.messages import LearnerInfo
from learner.teacher import TeacherWorker
from orchestrator.fleet import Fleet, Member
from orchestrator.learner_gang import TORCH_ENV, LearnerGang
from orchestrator.publish import SyncReport, WeightPublisher
from orchestrator.room import Reservation
from orchestrator.rooms import index_of
from orchestrator.scoring import GroupScorer
from orchestrator.workers import Workers
from sdpo.config import RunConfig
from sdpo.errors import WeightSyncError
from sdpo.types import Int32, Version
from sdpo.weights import Stream


class House(Workers):
    """Start with `start`, leave with `close`; `sync` publishes what the learner holds."""

    def __init__(
        self,
        config: RunConfig,
        incarnation: int,
        probe_ids: Int32,
        luggage: Luggage,
        *,
        stacks: Path,
        background: asyncio.TaskGroup,
    ) -> None:
        self._incarnation = incarnation
        self._open = False
        namespace = f"{config.name}-{incarnation}"
        self.gang = LearnerGang(config, namespace)
        super().__init__(config, namespace, luggage, stacks=stacks, background=background)
        self.publisher = WeightPublisher(self.gang, probe_ids, config.deadlines.weights_s, self._is_direct)
        num_teachers = config.placement.teacher.workers
        self.teachers = self._fleet("teacher", num_teachers, 2, self._prepare_teacher) if config.has_teachers else None
        self.scorer = None if self.teachers is None else GroupScorer(config, self.teachers)

    @property
    def fleets(self) -> list[Fleet]:
        return super().fleets if self.teachers is None else [*super().fleets, self.teachers]

    @property
    def actors(self) -> list[tuple[str, str, Any]]:
        """(role, name, handle) of every actor that there is now."""
        members = [(fleet.role, m.actor_name, m.handle) for fleet in self.fleets for m in fleet.members]
        return members + [("learner", name, rank) for name, rank in self.gang.ranks.items()]

    async def start(self, checkpoint: Path | str | None, steps_done: int) -> LearnerInfo:
        """Bring everybody up, then give everybody the learner's weights."""
        version = Version(incarnation=self._incarnation, batch=steps_done)
        self.publisher.versions = {"policy": version, "teacher": version}
        async with asyncio.TaskGroup() as group:
            learner = group.create_task(self.gang.start(checkpoint))
            group.create_task(self.start_fleets())
        async with self.publisher.lock:
            for stream, report in (await self._publish_all(self._streams)).items():
                for name, error in report.failed.items():
                    raise WeightSyncError(f"{name}: the initial {stream} weights did not arrive: {error}") from error
            self._open = True
        return learner.result()

    async def sync(self, version: Version) -> dict[Stream, SyncReport]:
        """Publish what the last batch made; call it with `publisher.lock` held. Failed receivers are replaced."""
        for stream in self._streams:
            self.publisher.versions[stream] = version
        reports = await self._publish_all(self._streams)
        for report in reports.values():
            for fleet in filter(None, (self.rollouts, self.teachers)):
                for member in fleet.members:
                    if member.name in report.failed:
                        fleet.report(member, member.handle, report.failed[member.name])
        return reports

    @property
    def teacher_version(self) -> Version:
        """The version that every teacher has acknowledged. Those that take no stream keep their first one."""
        return self.publisher.versions[self.config.teacher_stream or "teacher"]

    def close(self) -> None:
        """End every actor."""
        super().close()
        self.gang.kill()

    @property
    def _streams(self) -> list[Stream]:
        """The streams that are published after every batch."""
        return ["policy", "teacher"] if self.config.teacher_stream == "teacher" else ["policy"]

    async def _publish_all(self, streams: Sequence[Stream]) -> dict[Stream, SyncReport]:
        return {stream: await self.publisher.publish(stream, self._followers(stream)) for stream in streams}

    def _followers(self, stream: Stream) -> list[Member]:
        """Serving members that hold `stream`."""
        fleets = [self.rollouts] if stream == "policy" else []
        if self.teachers is not None and stream == self.config.teacher_stream:
            fleets.append(self.teachers)
        return [m for fleet in fleets for m in fleet.members if m.serving]

    def _is_direct(self, member: Member) -> bool:
        """Whether vLLM's own transfer reaches this member: teachers hold torch models."""
        return self.config.weights_backend != "ray" and member in self.rollouts.members

    def _spawn_teacher(self, name: str) -> Any:
        room = self._rooms["teacher"].take(name)
        return self._places.spawn(
            ray.remote(TeacherWorker), name, self.config, index_of(name), runtime_env=TORCH_ENV, **room.options
        )

    def _shared(self, role: str) -> Callable[[int], tuple[Reservation, int]] | None:
        return self.gang.place_of if self.config.placement.mode == "colocated" else None

    async def _prepare_rollout(self, member: Member) -> None:
        await super()._prepare_rollout(member)
        await self._catch_up("policy", member)

    async def _prepare_teacher(self, member: Member) -> None:
        stream = self.config.teacher_stream
        await self._find_room(member)
        if stream is None:
            await self._start(member, "start", self.teacher_version)
        else:
            await self._start(member, "start")
            await self._catch_up(stream, member)

    async def _catch_up(self, stream: Stream, member: Member) -> None:
        """A replacement loads the present weights before it serves; at the start one publication serves all."""
        if not self._open:
            return
        async with self.publisher.lock:
            report = await self.publisher.publish(stream, [member])
            for error in report.failed.values():
                raise WeightSyncError(f"{member.name}: {error}") from error
            member.serving = True  # under the lock: the next publication must not miss it

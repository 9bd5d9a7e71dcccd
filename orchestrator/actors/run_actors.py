"""All actors of a run: how they are started, given weights, and ended.

The orchestrator (this process) knows all of them; they do not know each other. Rollout workers, env workers and
teachers are fleets whose members are replaced when they die; the learner is a gang of ranks that ends as a whole.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import ray

from env_workers.code_bundle import CodeBundle
from learner.messages import LearnerInfo
from learner.teacher import TeacherWorker
from orchestrator.actors.fleet import Fleet, Member
from orchestrator.actors.learner_gang import TORCH_ENV, LearnerGang
from orchestrator.actors.sampling_actors import SamplingActors, start_fleets, supervision_of
from orchestrator.actors.spawn import MemberStarter
from orchestrator.actors.teacher_client import GroupScorer
from orchestrator.actors.weight_publisher import SyncReport, WeightPublisher
from orchestrator.cluster.namespace import run_namespace
from sdpo.config import RunConfig
from sdpo.errors import WeightSyncError
from sdpo.types import Int32, Version
from sdpo.weights import Stream


class RunActors:
    """`start` brings all actors up, `sync` publishes the learner's weights, `close` ends all actors."""

    def __init__(
        self,
        config: RunConfig,
        incarnation: int,
        probe_ids: Int32,
        code_bundle: CodeBundle,
        *,
        stacks: Path,
        background: asyncio.TaskGroup,
    ) -> None:
        self.config, self._incarnation = config, incarnation
        self._is_open = False
        self._weights = asyncio.Lock()
        namespace = run_namespace(config.name, incarnation)
        self.gang = LearnerGang(config, namespace)
        shared = self.gang.bundle_of if config.placement.mode == "colocated" else None
        self._starter = MemberStarter(config, namespace, shared)
        supervision = supervision_of(config, stacks, background)
        self._sampling = SamplingActors(
            self._starter, code_bundle, supervision, load_weights=partial(self._catch_up, "policy")
        )
        self.rollouts, self.envs, self.sampler = self._sampling.rollouts, self._sampling.envs, self._sampling.sampler
        self.publisher = WeightPublisher(self.gang, probe_ids, config.deadlines.weights_s, self._is_direct)
        self.teachers: Fleet | None = None
        self.scorer: GroupScorer | None = None
        if config.has_teachers:
            self.teachers = Fleet(
                "teacher",
                config.placement.teacher.workers,
                spawn=partial(self._starter.spawn, ray.remote(TeacherWorker), runtime_env=TORCH_ENV),
                prepare=self._prepare_teacher,
                max_load=2,
                supervision=supervision,
            )
            self.scorer = GroupScorer(config, self.teachers)

    @property
    def fleets(self) -> list[Fleet]:
        """All fleets of the run."""
        return self._sampling.fleets if self.teachers is None else [*self._sampling.fleets, self.teachers]

    @property
    def actors(self) -> list[tuple[str, str, Any]]:
        """(role, name, handle) of every present actor."""
        members = [(fleet.role, m.actor_name, m.handle) for fleet in self.fleets for m in fleet.members]
        return members + [("learner", name, rank) for name, rank in self.gang.ranks.items()]

    async def start(self, checkpoint: Path | str | None, steps_done: int) -> LearnerInfo:
        """Start all actors, then publish the learner's initial weights."""
        version = Version(incarnation=self._incarnation, batch=steps_done)
        self.publisher.versions = {"policy": version, "teacher": version}
        async with asyncio.TaskGroup() as group:
            learner = group.create_task(self.gang.start(checkpoint))
            group.create_task(start_fleets(self.fleets))
        async with self._weights:
            for stream, report in (await self._publish_all(self._streams)).items():
                for name, error in report.failed.items():
                    raise WeightSyncError(f"{name}: the initial {stream} weights did not arrive: {error}") from error
            self._is_open = True
        return learner.result()

    async def sync(self, version: Version) -> dict[Stream, SyncReport]:
        """Publish the weights after a batch, inside `exclusive_weights`. Failed receivers are replaced."""
        for stream in self._streams:
            self.publisher.versions[stream] = version
        reports = await self._publish_all(self._streams)
        for report in reports.values():
            for fleet in filter(None, (self.rollouts, self.teachers)):
                for member in fleet.members:
                    if member.name in report.failed:
                        fleet.report(member, member.handle, report.failed[member.name])
        return reports

    @asynccontextmanager
    async def exclusive_weights(self) -> AsyncIterator[None]:
        """Lock the learner's weights for the block: no other call changes or sends them meanwhile.

        A replacement of a worker or teacher loads the weights under the same lock, so the block must not wait for one.
        """
        async with self._weights:
            yield

    @property
    def teacher_version(self) -> Version:
        """The version that every teacher has acknowledged. Teachers that take no stream keep their first one."""
        return self.publisher.versions[self.config.teacher_stream or "teacher"]

    def close(self) -> None:
        """End every actor."""
        if self.teachers is not None:
            self.teachers.kill()
        self._sampling.close()
        self.gang.kill()

    @property
    def _streams(self) -> list[Stream]:
        """The streams that are published after every batch."""
        return ["policy", "teacher"] if self.config.teacher_stream == "teacher" else ["policy"]

    async def _publish_all(self, streams: Sequence[Stream]) -> dict[Stream, SyncReport]:
        return {stream: await self.publisher.publish(stream, self._followers(stream)) for stream in streams}

    def _followers(self, stream: Stream) -> list[Member]:
        """Serving members that receive `stream`."""
        fleets = [self.rollouts] if stream == "policy" else []
        if self.teachers is not None and stream == self.config.teacher_stream:
            fleets.append(self.teachers)
        return [m for fleet in fleets for m in fleet.members if m.serving]

    def _is_direct(self, member: Member) -> bool:
        """Return whether the member receives by vLLM's own transfer; teachers hold torch models and do not."""
        return self.config.weights_backend != "ray" and member in self.rollouts.members

    async def _prepare_teacher(self, member: Member) -> None:
        stream = self.config.teacher_stream
        if stream is None:
            await self._starter.start(member, "start", self.teacher_version)
        else:
            await self._starter.start(member, "start")
            await self._catch_up(stream, member)

    async def _catch_up(self, stream: Stream, member: Member) -> None:
        """Load the present weights into a replacement before it serves; at the start one publication serves all."""
        if not self._is_open:
            return
        async with self._weights:
            report = await self.publisher.publish(stream, [member])
            for error in report.failed.values():
                raise WeightSyncError(f"{member.name}: {error}") from error
            member.serving = True  # under the lock: the next publication must not miss it

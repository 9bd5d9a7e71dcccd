"""The house: every actor of a run, who they are and how they come up.

The orchestrator (this process) knows all of them; they do not know each other. Rollout workers, env workers and
teachers are fleets whose members may die and be replaced; the learner is a gang that lives and dies as one.
"""

import asyncio
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import ray

from env_workers.travel import Luggage
from learner.messages import LearnerInfo
from learner.teacher import TeacherWorker
from orchestrator.env_pool import EnvPool
from orchestrator.fleet import Fleet, Member
from orchestrator.learner_gang import TORCH_ENV, LearnerGang
from orchestrator.placement import Placement
from orchestrator.publish import SyncReport, WeightPublisher
from orchestrator.scoring import GroupScorer
from orchestrator.waits import within
from rollout_workers.worker import RolloutActor
from sdpo.config import RunConfig
from sdpo.errors import WeightSyncError
from sdpo.types import Int32, Version
from sdpo.weights import Stream


class House:
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
        self.config = config
        self._incarnation, self._stacks = incarnation, stacks
        self._open = False
        self._places = Placement(f"{config.name}-{incarnation}")
        self.gang = LearnerGang(config, self._places.namespace)
        self.publisher = WeightPublisher(self.gang, probe_ids, config.deadlines.weights_s, self._is_direct)
        engines, sequences = config.rollout.workers, config.rollout.max_num_seqs
        self.rollouts = self._fleet("rollout", engines, sequences, self._prepare_rollout, background)
        self.envs = EnvPool(
            config.env,
            self._places.namespace,
            spawn=partial(self._places.spawn_env, config.env, luggage),
            prepare=self._prepare_env,
            **self._supervision(background),
        )
        self.teachers = (
            self._fleet("teacher", config.teacher.workers, 2, self._prepare_teacher, background)
            if config.has_teachers
            else None
        )
        self.scorer = None if self.teachers is None else GroupScorer(config, self.teachers)

    async def start(self, checkpoint: Path | None, steps_done: int) -> LearnerInfo:
        """Bring everybody up, then give everybody the learner's weights."""
        version = Version(incarnation=self._incarnation, batch=steps_done)
        self.publisher.versions = {"policy": version, "teacher": version}
        async with asyncio.TaskGroup() as group:
            learner = group.create_task(self.gang.start(checkpoint))
            for fleet in (self.rollouts, self.envs, self.teachers):
                if fleet is not None:
                    group.create_task(fleet.start())
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
        for fleet in (self.rollouts, self.envs, self.teachers):
            if fleet is not None:
                fleet.kill()
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

    def _fleet(self, role: str, size: int, max_load: int, prepare: Any, background: asyncio.TaskGroup) -> Fleet:
        return Fleet(
            role,
            size,
            spawn=getattr(self, f"_spawn_{role}"),
            prepare=prepare,
            max_load=max_load,
            **self._supervision(background),
        )

    def _supervision(self, background: asyncio.TaskGroup) -> dict[str, Any]:
        return {
            "max_restarts": self.config.max_worker_restarts,
            "lease_timeout_s": self.config.deadlines.start_s + self.config.deadlines.generate_s,
            "stacks": self._stacks,
            "background": background,
        }

    def _spawn_rollout(self, name: str) -> Any:
        rollout = self.config.rollout
        return self._places.spawn(
            RolloutActor, name, self.config, _index(name), num_cpus=rollout.num_cpus, num_gpus=rollout.num_gpus
        )

    def _spawn_teacher(self, name: str) -> Any:
        teacher = self.config.teacher
        return self._places.spawn(
            ray.remote(TeacherWorker),
            name,
            self.config,
            _index(name),
            num_cpus=teacher.num_cpus,
            num_gpus=teacher.num_gpus,
            runtime_env=TORCH_ENV,
        )

    async def _prepare_rollout(self, member: Member) -> None:
        await self._start(member, "start")
        await self._catch_up("policy", member)

    async def _prepare_teacher(self, member: Member) -> None:
        stream = self.config.teacher_stream
        if stream is None:
            await self._start(member, "start", self.teacher_version)
        else:
            await self._start(member, "start")
            await self._catch_up(stream, member)

    async def _prepare_env(self, member: Member) -> None:
        await self._start(member, "ready")

    async def _start(self, member: Member, method: str, *arguments: Any) -> None:
        wait = getattr(member.handle, method).remote(*arguments)
        await within(wait, actor=member.name, stage=method, timeout_s=self.config.deadlines.start_s)

    async def _catch_up(self, stream: Stream, member: Member) -> None:
        """A replacement loads the present weights before it serves; at the start one publication serves all."""
        if not self._open:
            return
        async with self.publisher.lock:
            report = await self.publisher.publish(stream, [member])
            for error in report.failed.values():
                raise WeightSyncError(f"{member.name}: {error}") from error
            member.serving = True  # under the lock: the next publication must not miss it


def _index(name: str) -> int:
    return int(name.split("-")[1])

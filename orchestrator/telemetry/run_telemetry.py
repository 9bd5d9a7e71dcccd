"""A run's Prometheus metrics, its spans, and the stage that each of its idle actors waits for.

`Telemetry` reads the events of one incarnation; nothing here waits for an actor.
"""

import asyncio
import re
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from orchestrator.events import (
    ActorReplaced,
    AlarmRaised,
    AttemptJudged,
    CallBegan,
    CallEnded,
    CheckpointWritten,
    Event,
    GroupScored,
    GroupsQueued,
    MemberCheckedOut,
    MemoryMeasured,
    StepRecorded,
    WeightsPublished,
)
from orchestrator.telemetry.idle import Accounts
from orchestrator.telemetry.spans import role_of
from orchestrator.telemetry.trace_log import Span, TraceLog
from sdpo.errors import InfrastructureError, StageTimeout, WeightSyncError
from sdpo.telemetry.labels import BUSY, SIGNALS
from sdpo.telemetry.meters import Meters
from sdpo.types import RolloutHeader

TICK_S = 5.0
"""Ray reports every 10 s and drops gauges that were not set for 20 s."""

REWARDS = {
    "rollout/reward": "sdpo_reward",
    "rollout/reward_best": "sdpo_reward_best",
    "heldout/reward": "sdpo_heldout_reward",
}
"""The series of a step's metrics about rewards."""


class FleetView(Protocol):
    """The parts of a fleet that are counted."""

    role: str

    @property
    def member_names(self) -> list[str]: ...

    @property
    def states(self) -> dict[str, int]: ...

    @property
    def queue_length(self) -> int: ...


class Telemetry:
    """The telemetry of one incarnation. `hear` events between `open` and `close`, on one event loop."""

    def __init__(
        self,
        meters: Meters,
        run_dir: Path,
        trace: TraceLog | None,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """`clock` gives monotonic seconds, `wall` seconds since 1970."""
        self._meters, self._run_dir, self._trace, self._clock, self._wall = meters, run_dir, trace, clock, wall
        self._accounts = Accounts(clock())
        self._progress_s = wall()
        self._role_s = dict[tuple[str, str], float]()
        self._starts_s = dict[CallBegan, float]()
        self._num_queued_groups = 0
        self._fleets: Callable[[], Sequence[FleetView]] = list
        self._ranks: Callable[[], Sequence[str]] = list
        self._ticking: asyncio.Task[None] | None = None

    def open(
        self, fleets: Callable[[], Sequence[FleetView]], ranks: Callable[[], Sequence[str]], *, steps: int, planned: int
    ) -> None:
        """Begin to count the members of `fleets` and the learner's `ranks`, as they are at any time."""
        self._fleets, self._ranks = fleets, ranks
        self._meters.set("sdpo_run_active", 1)
        self._meters.set("sdpo_run_start_timestamp_seconds", self._wall())
        self._meters.set("sdpo_step", steps)
        self._meters.set("sdpo_steps_planned", planned)
        self.tick()
        self._ticking = asyncio.create_task(self._tick_for_ever())

    def close(self) -> None:
        """End the incarnation's series and its trace."""
        if self._ticking is not None:
            self._ticking.cancel()
        self.tick()
        self._meters.set("sdpo_run_active", 0)
        if self._trace is not None:
            self._trace.close()

    def hear(self, event: Event) -> None:
        """Count an event."""
        match event:
            case CallBegan():
                self._call_began(event)
            case CallEnded():
                self._call_ended(event)
            case MemberCheckedOut():
                self._meters.observe("sdpo_queue_wait_seconds", event.wait_s, role=event.role)
            case ActorReplaced():
                failure = "node_lost" if event.node_lost else failure_of(event.error)
                self._meters.add("sdpo_restarts_total", role=event.role, failure=failure)
            case AttemptJudged():
                self._meters.add("sdpo_tokens_total", event.header.num_model_tokens, work="generated")
            case GroupScored():
                self._meters.add("sdpo_tokens_total", event.num_tokens, work="scored")
            case GroupsQueued():
                self._num_queued_groups = event.num_groups
            case WeightsPublished():
                self._weights_published(event)
            case MemoryMeasured():
                self._meters.set(
                    "sdpo_actor_memory_bytes", event.num_bytes, actor=place_of(event.actor), role=event.role
                )
            case CheckpointWritten():
                self._meters.observe("sdpo_checkpoint_seconds", event.seconds)
                self._meters.set("sdpo_checkpoint_step", event.step)
            case StepRecorded():
                self._step_recorded(event)
            case AlarmRaised():
                self._meters.add("sdpo_alarms_total", alarm=event.alarm.name)

    def times(self) -> dict[str, float]:
        """Return the seconds of every role's actors since the last call, busy and idle by the stage they wait for."""
        self.tick()
        seconds_by_state, self._role_s = self._role_s, {}
        return {
            f"time/busy/{role}_s" if state == BUSY else f"time/idle/{role}/{state}_s": seconds
            for (role, state), seconds in sorted(seconds_by_state.items())
        }

    def write_trace(self, step: int) -> None:
        """Write the calls that have ended as the trace of `step`. Blocks; may be called from a thread."""
        if self._trace is not None:
            self._trace.write(step)

    def _call_began(self, call: CallBegan) -> None:
        now_s = self._starts_s[call] = self._clock()
        if call.actor not in self._accounts:
            self._count_actors(now_s)
        self._accounts.begin(call.actor, call.stage, now_s)

    def _call_ended(self, event: CallEnded) -> None:
        call, now_s = event.began, self._clock()
        start_s = self._starts_s.pop(call, None)
        if start_s is None:  # it began before this telemetry was bound
            return
        self._accounts.end(call.actor, call.stage, now_s)
        if not event.failed:
            self._progress_s = self._wall()
        if self._trace is not None:
            self._trace.add(Span(call=call, start_s=start_s, end_s=now_s, failed=event.failed))

    def _weights_published(self, event: WeightsPublished) -> None:
        self._meters.observe("sdpo_sync_seconds", event.seconds, stream=event.stream)
        self._meters.add("sdpo_sync_bytes_total", event.num_bytes, stream=event.stream)
        for actor in (*event.receivers, *self._ranks()):
            self._meters.set(
                "sdpo_weight_version", event.batch_index, actor=actor, role=role_of(actor), stream=event.stream
            )
        self._meters.add("sdpo_sync_failures_total", event.num_failed, stream=event.stream)

    def _step_recorded(self, event: StepRecorded) -> None:
        metrics = event.metrics
        for name in SIGNALS:
            if name in metrics:
                self._meters.set("sdpo_signal", metrics[name], signal=name)
        for name, split in (("rollout/pass_rate", "train"), ("heldout/pass@1", "heldout")):
            if name in metrics:
                self._meters.set("sdpo_pass_rate", metrics[name], split=split)
        for name, series in REWARDS.items():
            if name in metrics:
                self._meters.set(series, metrics[name])
        if "time/step_s" in metrics:
            self._meters.observe("sdpo_step_seconds", metrics["time/step_s"])
        for name, value in metrics.items():
            if name.startswith("health/") and name != "health/alarms":
                self._meters.set("sdpo_alarm", value, alarm=name.removeprefix("health/"))
        self._meters.add("sdpo_tokens_total", metrics.get("train/tokens", 0.0), work="trained")
        self._meters.add("sdpo_attempts_trained_total", metrics.get("attempts/trained", 0.0))
        self._meters.set("sdpo_step", event.step)
        counts = {
            "passed": event.num_passed,
            "failed": len(event.headers) - event.num_passed,
            "dropped": metrics.get("attempts/dropped", 0.0),
        }
        for outcome, count in counts.items():
            self._meters.add("sdpo_attempts_total", count, outcome=outcome)
        for header in event.headers:
            self._observe_attempt(event.step, header)

    def _observe_attempt(self, step: int, header: RolloutHeader) -> None:
        self._meters.observe("sdpo_response_length_tokens", header.num_model_tokens)
        if header.versions:
            oldest = min(version.batch for version in header.versions)
            self._meters.observe("sdpo_staleness_batches", max(0, step - 1 - oldest))

    async def _tick_for_ever(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self.tick()

    def tick(self) -> None:
        """Book the time up to now, and set every gauge that no event sets."""
        now_s = self._clock()
        self._count_actors(now_s)
        seconds, stages = self._accounts.take(now_s)
        roles = self._accounts.actors
        for actor, states in seconds.items():
            self._book(actor, roles[actor], states)
        for stage, passed_s in stages.items():
            self._meters.add("sdpo_stage_seconds_total", passed_s, stage=stage)
        for stage, count in self._accounts.running.items():
            self._meters.set("sdpo_stage_running", count, stage=stage)
        self._meters.set("sdpo_last_progress_timestamp_seconds", self._progress_s)
        disk = shutil.disk_usage(self._run_dir)
        self._meters.set("sdpo_run_dir_free_bytes", disk.free)
        self._meters.set("sdpo_run_dir_size_bytes", disk.total)
        self._meters.refresh()

    def _count_actors(self, now_s: float) -> None:
        present = dict.fromkeys(self._ranks(), "learner")
        for fleet in self._fleets():
            present |= dict.fromkeys(fleet.member_names, fleet.role)
            self._meters.set("sdpo_queue_length", fleet.queue_length, role=fleet.role)
            for state, count in fleet.states.items():
                self._meters.set("sdpo_actors", count, role=fleet.role, pool=state)
        self._meters.set("sdpo_actors", len(self._ranks()), role="learner", pool="serving")
        self._meters.set("sdpo_queue_length", self._num_queued_groups, role="learner")
        known = self._accounts.actors
        for actor, role in present.items():
            if actor not in known:
                self._accounts.add(actor, role, now_s)
                self._meters.introduce(actor, role)
        for actor in known.keys() - present.keys():
            self._book(actor, known[actor], self._accounts.remove(actor, now_s))
            self._meters.forget(actor)

    def _book(self, actor: str, role: str, states: Mapping[str, float]) -> None:
        for state, seconds in states.items():
            self._meters.add("sdpo_actor_seconds_total", seconds, actor=actor, role=role, state=state)
            self._role_s[role, state] = self._role_s.get((role, state), 0.0) + seconds


def place_of(actor: str) -> str:
    """Return the member of an actor, env-3 of env-3-r1: a series of the driver goes on when an actor is replaced."""
    return re.sub(r"-r\d+$", "", actor)


def failure_of(error: BaseException) -> str:
    """Return the value of the label `failure` for an error."""
    from ray.exceptions import OutOfMemoryError, RayActorError

    cause = getattr(error, "cause", None) or error
    kinds: tuple[tuple[type[BaseException], str], ...] = (
        (RayActorError, "actor_died"),
        (OutOfMemoryError, "actor_died"),
        (StageTimeout, "stage_timeout"),
        (WeightSyncError, "weight_sync"),
        (InfrastructureError, "infrastructure"),
    )
    return next((name for kind, name in kinds if isinstance(cause, kind) or isinstance(error, kind)), "other")

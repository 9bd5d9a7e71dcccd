"""What a run says about itself while it goes: Prometheus metrics, spans, and whom its actors wait for.

One `Telemetry` for each incarnation. `current()` is the one of this context, or one that hears nothing: parts that are
used outside of a run need not know. Nothing here waits for an actor.
"""

import asyncio
import re
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from orchestrator.idle import Accounts
from orchestrator.spans import Matter, Span, current_listener, listen, role_of
from orchestrator.trace_log import TraceLog
from sdpo.errors import InfrastructureError, StageTimeout, WeightSyncError
from sdpo.health import Alarm
from sdpo.telemetry.labels import BUSY, SIGNALS
from sdpo.telemetry.meters import Meters
from sdpo.types import RolloutHeader

TICK_S = 5.0
"""Ray reports every 10 s and drops gauges that nobody has set for 20 s."""


class Crew(Protocol):
    """A fleet, as far as it is counted."""

    role: str

    @property
    def places(self) -> list[str]: ...

    @property
    def states(self) -> dict[str, int]: ...

    @property
    def queue_length(self) -> int: ...


class Silent:
    """Hears of a run and keeps nothing."""

    def begin(self, actor: str, call: str, stage: str, matter: Matter) -> object:
        """A call of an actor begins; what `end` is to be given."""

    def end(self, token: object, *, failed: bool) -> None:
        """It has ended."""

    def watch_buffer(self, finished_groups: Callable[[], int]) -> None:
        """The loop begins; so many groups wait for the learner."""

    def waited(self, role: str, seconds: float) -> None:
        """Somebody got an actor of `role` after `seconds`."""

    def replaced(self, role: str, error: BaseException, *, node_lost: bool = False) -> None:
        """An actor of `role` is started again because of `error`."""

    def sampled(self, header: RolloutHeader) -> None:
        """An attempt is over, in training or in an evaluation."""

    def scored(self, num_tokens: int) -> None:
        """Teachers have scored prompts and responses of so many tokens."""

    def published(self, stream: str, batch: int, receivers: Sequence[str], seconds: float, num_bytes: int) -> None:
        """`receivers` hold the weights that `batch` made."""

    def not_published(self, stream: str, num_failed: int) -> None:
        """So many receivers did not get them."""

    def holds(self, actor: str, role: str, num_bytes: int) -> None:
        """So much memory."""

    def checkpointed(self, steps: int, seconds: float) -> None:
        """A checkpoint was written."""

    def measured(self, metrics: Mapping[str, float]) -> None:
        """Metrics of a step or of an evaluation are complete."""

    def alarmed(self, health: Mapping[str, float], begun: Sequence[Alarm]) -> None:
        """Which alarms are on, and which of them have just begun."""

    def attempted(self, step: int, headers: Sequence[RolloutHeader], passed: int, dropped: int, trained: int) -> None:
        """A step is done with these judged attempts."""

    def times(self) -> dict[str, float]:
        """Metrics of a step: seconds of every role's actors since the last call, busy and idle by what they await."""
        return {}

    def write_trace(self, step: int) -> None:
        """Write down the calls that have ended."""


SILENT = Silent()


def current() -> Silent:
    """That of this context."""
    found = current_listener()
    return found if isinstance(found, Silent) else SILENT


class Telemetry(Silent):
    """Of one incarnation, from `open` to `close`, on one event loop."""

    def __init__(
        self,
        meters: Meters,
        run_dir: Path,
        trace: TraceLog | None,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """`clock`: seconds, monotonic; `wall`: seconds since 1970."""
        self._meters, self._run_dir, self._trace, self._clock, self._wall = meters, run_dir, trace, clock, wall
        self._accounts = Accounts(clock())
        self._progress_s = wall()
        self._role_s = dict[tuple[str, str], float]()
        self._crews: Callable[[], Sequence[Crew]] = list
        self._ranks: Callable[[], Sequence[str]] = list
        self._finished_groups: Callable[[], int] = int
        self._ticking: asyncio.Task[None] | None = None

    def open(
        self, crews: Callable[[], Sequence[Crew]], ranks: Callable[[], Sequence[str]], *, steps: int, planned: int
    ) -> None:
        """Begin to count: the members of `crews` and the learner's `ranks`, as they are at any time."""
        self._crews, self._ranks = crews, ranks
        listen(self)
        self._meters.set("sdpo_run_active", 1)
        self._meters.set("sdpo_run_start_timestamp_seconds", self._wall())
        self._meters.set("sdpo_step", steps)
        self._meters.set("sdpo_steps_planned", planned)
        self.tick()
        self._ticking = asyncio.create_task(self._tick_for_ever())

    def close(self) -> None:
        """The incarnation is over."""
        if self._ticking is not None:
            self._ticking.cancel()
        self.tick()
        self._meters.set("sdpo_run_active", 0)
        if self._trace is not None:
            self._trace.close()
        listen(None)

    def begin(self, actor: str, call: str, stage: str, matter: Matter) -> object:
        now_s = self._clock()
        if actor not in self._accounts:
            self._count_actors(now_s)
        self._accounts.begin(actor, stage, now_s)
        return actor, call, stage, matter, now_s

    def end(self, token: object, *, failed: bool) -> None:
        assert isinstance(token, tuple)
        actor, call, stage, matter, start_s = token
        now_s = self._clock()
        self._accounts.end(actor, stage, now_s)
        if not failed:
            self._progress_s = self._wall()
        if self._trace is not None:
            times = {"start_s": start_s, "end_s": now_s, "failed": failed}
            self._trace.add(Span(actor=actor, call=call, stage=stage, step=matter.step, task=matter.task, **times))

    def watch_buffer(self, finished_groups: Callable[[], int]) -> None:
        self._finished_groups = finished_groups

    def waited(self, role: str, seconds: float) -> None:
        self._meters.observe("sdpo_queue_wait_seconds", seconds, role=role)

    def replaced(self, role: str, error: BaseException, *, node_lost: bool = False) -> None:
        failure = "node_lost" if node_lost else failure_of(error)
        self._meters.add("sdpo_restarts_total", role=role, failure=failure)

    def sampled(self, header: RolloutHeader) -> None:
        self._meters.add("sdpo_tokens_total", header.num_model_tokens, work="generated")

    def scored(self, num_tokens: int) -> None:
        self._meters.add("sdpo_tokens_total", num_tokens, work="scored")

    def published(self, stream: str, batch: int, receivers: Sequence[str], seconds: float, num_bytes: int) -> None:
        self._meters.observe("sdpo_sync_seconds", seconds, stream=stream)
        self._meters.add("sdpo_sync_bytes_total", num_bytes, stream=stream)
        for actor in (*receivers, *self._ranks()):
            self._meters.set("sdpo_weight_version", batch, actor=actor, role=role_of(actor), stream=stream)

    def not_published(self, stream: str, num_failed: int) -> None:
        self._meters.add("sdpo_sync_failures_total", num_failed, stream=stream)

    def holds(self, actor: str, role: str, num_bytes: int) -> None:
        self._meters.set("sdpo_actor_memory_bytes", num_bytes, actor=place_of(actor), role=role)

    def checkpointed(self, steps: int, seconds: float) -> None:
        self._meters.observe("sdpo_checkpoint_seconds", seconds)
        self._meters.set("sdpo_checkpoint_step", steps)

    def measured(self, metrics: Mapping[str, float]) -> None:
        for name in SIGNALS:
            if name in metrics:
                self._meters.set("sdpo_signal", metrics[name], signal=name)
        shown = {"rollout/pass_rate": "train", "heldout/pass@1": "heldout"}
        for name, split in shown.items():
            if name in metrics:
                self._meters.set("sdpo_pass_rate", metrics[name], split=split)
        if "rollout/reward" in metrics:
            self._meters.set("sdpo_reward", metrics["rollout/reward"])
        if "time/step_s" in metrics:
            self._meters.observe("sdpo_step_seconds", metrics["time/step_s"])
        self._meters.add("sdpo_tokens_total", metrics.get("train/tokens", 0.0), work="trained")

    def alarmed(self, health: Mapping[str, float], begun: Sequence[Alarm]) -> None:
        for name, value in health.items():
            if (alarm := name.removeprefix("health/")) != "alarms":
                self._meters.set("sdpo_alarm", value, alarm=alarm)
        for one in begun:
            self._meters.add("sdpo_alarms_total", alarm=one.name)

    def attempted(self, step: int, headers: Sequence[RolloutHeader], passed: int, dropped: int, trained: int) -> None:
        self._meters.set("sdpo_step", step)
        for outcome, count in (("passed", passed), ("failed", len(headers) - passed), ("dropped", dropped)):
            self._meters.add("sdpo_attempts_total", count, outcome=outcome)
        self._meters.add("sdpo_attempts_trained_total", trained)
        for header in headers:
            self._meters.observe("sdpo_response_length_tokens", header.num_model_tokens)
            if header.versions:
                oldest = min(int(version.rpartition(".")[2]) for version in header.versions)
                self._meters.observe("sdpo_staleness_batches", max(0, step - 1 - oldest))

    def times(self) -> dict[str, float]:
        self.tick()
        found, self._role_s = self._role_s, {}
        return {
            f"time/busy/{role}_s" if state == BUSY else f"time/idle/{role}/{state}_s": seconds
            for (role, state), seconds in sorted(found.items())
        }

    def write_trace(self, step: int) -> None:
        if self._trace is not None:
            self._trace.write(step)

    async def _tick_for_ever(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self.tick()

    def tick(self) -> None:
        """Bring everything up to now that nobody reports."""
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
        for crew in self._crews():
            present |= dict.fromkeys(crew.places, crew.role)
            self._meters.set("sdpo_queue_length", crew.queue_length, role=crew.role)
            for state, count in crew.states.items():
                self._meters.set("sdpo_actors", count, role=crew.role, pool=state)
        self._meters.set("sdpo_actors", len(self._ranks()), role="learner", pool="serving")
        self._meters.set("sdpo_queue_length", self._finished_groups(), role="learner")
        known = self._accounts.actors
        for actor, role in present.items():
            if actor not in known:
                self._accounts.hire(actor, role, now_s)
                self._meters.introduce(actor, role)
        for actor in known.keys() - present.keys():
            self._book(actor, known[actor], self._accounts.dismiss(actor, now_s))
            self._meters.forget(actor)

    def _book(self, actor: str, role: str, states: Mapping[str, float]) -> None:
        for state, seconds in states.items():
            self._meters.add("sdpo_actor_seconds_total", seconds, actor=actor, role=role, state=state)
            self._role_s[role, state] = self._role_s.get((role, state), 0.0) + seconds


def place_of(actor: str) -> str:
    """env-3 of env-3-r1: series of the driver are about the place, whichever actor holds it."""
    return re.sub(r"-r\d+$", "", actor)


def failure_of(error: BaseException) -> str:
    """The value of the label `failure`."""
    from ray.exceptions import RayActorError

    cause = getattr(error, "cause", None) or error
    kinds: tuple[tuple[type[BaseException], str], ...] = (
        (RayActorError, "actor_died"),
        (StageTimeout, "stage_timeout"),
        (WeightSyncError, "weight_sync"),
        (InfrastructureError, "infrastructure"),
    )
    return next((name for kind, name in kinds if isinstance(cause, kind) or isinstance(error, kind)), "other")

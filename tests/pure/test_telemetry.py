"""Instruments, spans, and what a run tells of itself, with a backend that remembers and a clock of its own."""

import asyncio
import json
from pathlib import Path

import pytest
from ray.exceptions import RayActorError

from orchestrator.events import CallBegan, CallEnded, listening
from orchestrator.telemetry.deadlines import with_deadline
from orchestrator.telemetry.run_telemetry import Telemetry, failure_of, place_of
from orchestrator.telemetry.spans import bind_context, calling, during
from orchestrator.telemetry.trace_log import MAX_SPANS, TraceLog, read_trace
from sdpo.errors import InfrastructureError, StageTimeout, WeightSyncError
from sdpo.telemetry.catalogue import CATALOGUE
from sdpo.telemetry.labels import LABELS, MAX_ACTORS, OTHER
from sdpo.telemetry.meters import Meters
from tests.fixtures.meters import RememberedMetrics

RUN = "demo-1"


def test_names_say_kind_and_unit() -> None:
    suffixes = {"seconds": "_seconds", "bytes": "_bytes", "tokens": "_tokens", "unix seconds": "_timestamp_seconds"}
    for metric in CATALOGUE.values():
        assert metric.name.startswith("sdpo_")
        assert metric.name.endswith("_total") == (metric.kind == "counter"), metric.name
        assert metric.name.removesuffix("_total").endswith(suffixes.get(metric.unit, "")), metric.name
        assert bool(metric.buckets) == (metric.kind == "histogram"), metric.name
        assert list(metric.buckets) == sorted(set(metric.buckets)), metric.name
        assert set(metric.labels) <= LABELS.keys()
        assert metric.meaning.endswith((".", "value.")), metric.name


def test_counters_begin_at_zero_for_every_known_label_and_unknown_values_are_other() -> None:
    backend = RememberedMetrics()
    meters = Meters(backend, RUN)
    begun = {name for name in backend.series if name.startswith("sdpo_attempts_total")}
    assert begun == {f"sdpo_attempts_total{{orchestrator,{o}}}" for o in LABELS["outcome"]}
    assert set(backend.series.values()) == {0.0}
    meters.introduce("env-0", "env")
    assert backend.series["sdpo_actor_seconds_total{env-0,env,busy}"] == 0.0
    meters.add("sdpo_restarts_total", 2, role="env", failure="a failure from outside")
    assert backend.series["sdpo_restarts_total{orchestrator,env,other}"] == 2.0
    meters.add("sdpo_attempts_total", 0, outcome="passed")  # Ray refuses 0
    with pytest.raises(KeyError, match="labels"):
        meters.add("sdpo_attempts_total", 1, role="env")
    with pytest.raises(ValueError, match="outcome=lost"):
        meters.add("sdpo_attempts_total", 1, outcome="lost")


def test_gauges_are_set_again_until_their_actor_is_gone_and_names_are_bounded() -> None:
    backend = RememberedMetrics()
    meters = Meters(backend, RUN)
    for number in range(MAX_ACTORS + 50):
        meters.set("sdpo_actor_memory_bytes", number, actor=f"env-{number}", role="env")
    names = {name for name in backend.series if name.startswith("sdpo_actor_memory_bytes")}
    assert len(names) == MAX_ACTORS + 1
    assert f"sdpo_actor_memory_bytes{{{OTHER},env}}" in names
    meters.set("sdpo_reward", float("nan"))
    backend.series.clear()
    meters.forget("env-7")
    meters.refresh()
    assert names - backend.series.keys() == {"sdpo_actor_memory_bytes{env-7,env}"}
    assert "sdpo_reward{orchestrator}" not in backend.series


class FleetView:
    """One env worker and, from the second look on, a second one."""

    role, queue_length = "env", 3

    def __init__(self) -> None:
        self.member_names = ["env-0"]

    @property
    def states(self) -> dict[str, int]:
        return {"serving": len(self.member_names), "pending": 0, "draining": 0}


class EnvClient:
    """A telemetry whose clock is `now_s`."""

    def __init__(self, folder: Path) -> None:
        self.now_s, self.backend, self.crew = 10.0, RememberedMetrics(), FleetView()
        self.trace = TraceLog(folder / "trace", resumed_steps=0, wall_minus_clock_s=1000.0)
        self.telemetry = Telemetry(
            Meters(self.backend, RUN), folder, self.trace, clock=lambda: self.now_s, wall=lambda: 1000.0 + self.now_s
        )

    def open(self) -> None:
        self.telemetry.open(lambda: [self.crew], lambda: ["learner-rank0"], steps=2, planned=9)

    async def call(self, actor: str, call: str, seconds: float) -> None:
        """A call of an actor that takes so long."""

        async def work() -> None:
            self.now_s += seconds

        await with_deadline(work(), actor=actor, stage=call, timeout_s=60)


def test_calls_become_spans_busy_time_and_metrics(tmp_path: Path) -> None:
    world = EnvClient(tmp_path)

    async def step() -> None:
        world.open()
        with listening(world.telemetry.hear):
            await calls()
        assert world.telemetry.times() == {
            "time/busy/env_s": 3.0,
            "time/idle/env/train_s": 4.0,
            "time/busy/learner_s": 4.0,
            "time/idle/learner/judge_s": 2.0,
            "time/idle/learner/evaluate_s": 1.0,
        }
        world.telemetry.write_trace(3)
        world.telemetry.close()

    async def calls() -> None:
        bind_context(step=3, task="t1")
        await world.call("env-0", "step", 2.0)
        with during("evaluate"):
            await world.call("env-0", "step", 1.0)
        await world.call("env-0", "counts", 0.0)  # of no stage
        await world.call("producer", "step", 0.0)  # no actor
        world.crew.member_names = ["env-0", "env-1"]
        await world.call("learner-rank0", "train", 4.0)
        with pytest.raises(InfrastructureError), calling("env-1", "step"):
            raise InfrastructureError("broken")

    asyncio.run(step())
    rows = list(read_trace(tmp_path / "trace"))
    assert [(r["actor"], r["call"], r["stage"], r["start"], r["end"]) for r in rows] == [
        ("env-0", "step", "judge", 1010.0, 1012.0),
        ("env-0", "step", "evaluate", 1012.0, 1013.0),
        ("learner-rank0", "train", "train", 1013.0, 1017.0),
        ("env-1", "step", "judge", 1017.0, 1017.0),
    ]
    assert [r.get("task") for r in rows] == ["t1", "t1", None, "t1"]
    assert {r["step"] for r in rows} == {3}
    assert [r.get("failed") for r in rows] == [None, None, None, True]
    series = world.backend.series
    assert series["sdpo_actor_seconds_total{env-0,env,busy}"] == 3.0
    assert series["sdpo_actor_seconds_total{env-0,env,train}"] == 4.0
    assert series["sdpo_actor_seconds_total{env-1,env,train}"] == 0.0
    assert series["sdpo_stage_seconds_total{orchestrator,train}"] == 4.0
    assert series["sdpo_actors{orchestrator,env,serving}"] == 2
    assert series["sdpo_queue_length{orchestrator,env}"] == 3
    assert series["sdpo_last_progress_timestamp_seconds{orchestrator}"] == 1017.0
    assert series["sdpo_run_active{orchestrator}"] == 0


def test_a_resumed_trace_begins_after_its_checkpoint_and_a_flood_is_cut(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        (tmp_path / f"step-{step:06d}.jsonl").write_text("{}\n")
    log = TraceLog(tmp_path, resumed_steps=2, wall_minus_clock_s=0.0)
    assert [file.name for file in sorted(tmp_path.iterdir())] == ["step-000001.jsonl", "step-000002.jsonl"]
    world = EnvClient(tmp_path)
    world.telemetry._trace = log
    for _ in range(MAX_SPANS + 5):
        call = CallBegan(actor="env-0", call="step", stage="judge")
        world.telemetry.hear(call)
        world.telemetry.hear(CallEnded(began=call, failed=False))
    log.write(3)
    lines = (tmp_path / "step-000003.jsonl").read_text().splitlines()
    assert len(lines) == MAX_SPANS + 1
    assert json.loads(lines[-1]) == {"dropped": 5}


def test_a_call_that_began_before_the_telemetry_is_not_counted(tmp_path: Path) -> None:
    world = EnvClient(tmp_path)
    world.telemetry.hear(CallEnded(began=CallBegan(actor="env-0", call="step", stage="judge"), failed=False))
    assert world.telemetry.times() == {}


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (RayActorError(), "actor_died"),
        (StageTimeout("env-0", "step", 1.0), "stage_timeout"),
        (WeightSyncError("x"), "weight_sync"),
        (InfrastructureError("x"), "infrastructure"),
        (ValueError("x"), "other"),
    ],
)
def test_failures_have_few_names(error: BaseException, expected: str) -> None:
    assert failure_of(error) == expected


def test_series_are_about_places() -> None:
    assert [place_of(name) for name in ("env-3", "env-3-r12", "learner-rank0")] == ["env-3", "env-3", "learner-rank0"]

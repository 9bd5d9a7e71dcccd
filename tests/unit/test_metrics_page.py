"""docs/metrics.md has every metric; which of them hang on the machine; speed and memory."""

import asyncio
import math
from typing import Any

import pytest
from ray.exceptions import RayActorError

from learner.tally import MEANS
from orchestrator.evaluation import Judged
from orchestrator.measure import (
    batch_metrics,
    heldout_metrics,
    is_evaluated,
    is_of_the_machine,
    speed_metrics,
    sync_metrics,
    time_metrics,
)
from orchestrator.memory import MemoryGauge
from orchestrator.publish import SyncReport
from sdpo.config import HealthConfig
from sdpo.health import HealthMonitor
from sdpo.telemetry.labels import ROLES, WAITS_FOR
from tests.metrics_page import patterns, undocumented
from tests.orchestrator_fixtures import Ref, config_of, group


def measured() -> set[str]:
    """Names of what the orchestrator and the learner measure."""
    groups = [group(0, [True, False]), group(1, [True])]
    for g in groups:
        g.seconds = {"group": 2.0, "generate": 1.0, "score": 0.5, "reference": 0.1, "wait_environment": 0.1}
    metrics = batch_metrics(groups, advantage_is_signal=False) | time_metrics(groups)
    metrics |= {"train/tokens": 30.0, "time/train_s": 2.0}
    metrics |= speed_metrics(groups, metrics)
    metrics |= sync_metrics({"policy": SyncReport(), "teacher": SyncReport()})
    attempts = [Judged(g.task, a.header, a.verdict) for g in groups for a in g.attempts]
    metrics |= heldout_metrics(attempts, "heldout") | heldout_metrics(attempts, "repair")
    metrics |= HealthMonitor(HealthConfig()).metrics()
    times = {f"time/busy/{role}_s" for role in ROLES}
    times |= {f"time/idle/{role}/{state}_s" for role in ROLES for state in WAITS_FOR}
    return metrics.keys() | {f"train/{name}" for name in MEANS} | times


def test_the_page_has_every_metric() -> None:
    assert undocumented(measured()) == []
    assert undocumented({"train/loss", "train/unheard_of"}) == ["train/unheard_of"]
    assert len(patterns()) == len(set(patterns()))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("time/step_s", True),
        ("speed/trained_tokens_per_s", True),
        ("memory/learner_bytes", True),
        ("train/seconds", True),
        ("train/tokens", False),
        ("weights/policy_bytes", False),
        ("heldout/pass@1", False),
    ],
)
def test_what_hangs_on_the_machine(name: str, expected: bool) -> None:
    assert is_of_the_machine(name) is expected


def test_speed_counts_what_the_model_wrote_dropped_attempts_too() -> None:
    groups = [group(0, [True, True]), group(1, [True])]
    groups[0].seconds, groups[1].seconds = {"group": 4.0}, {"group": 2.0}
    groups[1].dropped, groups[1].attempts = groups[1].attempts, []
    # of 10, 17 and 11 tokens one each is the prompt's
    assert speed_metrics(groups, {}) == {"speed/generated_tokens_per_s": (9 + 16 + 10) / 4}
    assert speed_metrics([], {"train/tokens": 60.0, "time/train_s": 2.0}) == {"speed/trained_tokens_per_s": 30.0}


def test_evaluations_are_due_every_so_many_steps_and_at_the_end() -> None:
    config = config_of(steps=7, evaluation={"every_steps": 3}, tasks={"heldout": "held.jsonl"})
    assert [step for step in range(1, 8) if is_evaluated(step, config)] == [3, 6, 7]
    assert not is_evaluated(7, config_of(steps=7, tasks={"heldout": None}))


class Actor:
    """Answers the question for its memory with `answer`, or never."""

    def __init__(self, answer: Any) -> None:
        self.asked, self._answer = 0, answer
        self.memory = self

    def remote(self) -> Any:
        self.asked += 1
        return asyncio.get_running_loop().create_future() if self._answer is None else Ref(self._answer)


class House:
    def __init__(self, **actors: Actor) -> None:
        self.actors = [(name.split("_")[0], name, actor) for name, actor in actors.items()]


def test_memory_is_summed_by_role_and_nobody_is_waited_for() -> None:
    busy, dead = Actor(None), Actor(RayActorError())
    ranks = {f"learner_{i}": Actor({"bytes": 5, "gpu_bytes": 100 + i}) for i in range(2)}
    house: Any = House(teacher_0=busy, teacher_1=Actor({"bytes": 7}), rollout_0=dead, **ranks)

    async def steps() -> dict[str, float]:
        gauge = MemoryGauge(house)
        assert gauge.figures().keys() == {"memory/orchestrator_bytes"}, "nobody has answered"
        for _ in range(3):
            gauge.ask()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        return gauge.figures()

    found = asyncio.run(steps())
    own_bytes = found.pop("memory/orchestrator_bytes")
    assert found == {"memory/teacher_bytes": 7.0, "memory/learner_bytes": 10.0, "memory/learner_gpu_bytes": 201.0}
    assert 2**20 < own_bytes < 2**40
    assert math.isfinite(own_bytes)
    assert busy.asked == 1, "one question at a time"
    assert dead.asked > 1, "its successor is asked again"
    assert undocumented(found) == []

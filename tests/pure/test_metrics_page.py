"""docs/metrics.md has every metric; which of them hang on the machine; speed and memory."""

import pytest

from learner.tally import MEANS
from orchestrator.actors.weight_publisher import SyncReport
from orchestrator.batch.step_metrics import (
    batch_metrics,
    heldout_metrics,
    speed_metrics,
    sync_metrics,
    time_metrics,
)
from sdpo.config import HealthConfig
from sdpo.health import HealthMonitor
from sdpo.telemetry.labels import ROLES, WAITS_FOR
from tests.fixtures.metrics_page import is_of_the_machine, patterns, undocumented
from tests.fixtures.orchestrator import config_of, group


def measured() -> set[str]:
    """Names of what the orchestrator and the learner measure."""
    groups = [group(0, [True, False]), group(1, [True])]
    for g in groups:
        g.seconds = {"group": 2.0, "generate": 1.0, "score": 0.5, "reference": 0.1, "wait_environment": 0.1}
    metrics = batch_metrics(groups, advantage_is_signal=False) | time_metrics(groups)
    metrics |= {"train/tokens": 30.0, "time/train_s": 2.0}
    metrics |= speed_metrics(groups, metrics)
    metrics |= sync_metrics({"policy": SyncReport(), "teacher": SyncReport()})
    attempts = [a for g in groups for a in g.attempts]
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
    assert [step for step in range(1, 8) if config.is_evaluated(step)] == [3, 6, 7]
    assert not config_of(steps=7, tasks={"heldout": None}).is_evaluated(7)

"""Metrics of rewards that are not 0 or 1, and who reads them: summary, step line, checkpoints, results."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator.api import RunResult
from orchestrator.batch.step_metrics import batch_metrics, heldout_metrics
from orchestrator.commands.train.summary import summary_lines
from orchestrator.group import Group
from orchestrator.progress.view import step_line
from orchestrator.run_dir.wording import scores, tells_more
from sdpo.types import Verdict
from tests.fixtures.orchestrator import config_of, judged, task_of
from tests.fixtures.report import heldout, step_record, write_report_run


def group_of(name: str, *rewards: float, success: bool = True) -> Group:
    task = task_of(name)
    verdicts = [Verdict(reward=reward, success=success, kind="scored") for reward in rewards]
    attempts = [judged(task, i, verdict) for i, verdict in enumerate(verdicts)]
    return Group(batch_index=0, index=0, task=task, attempts=attempts)


def test_a_step_has_its_best_reward_and_that_of_its_groups() -> None:
    groups = [group_of("a", -3.0, -1.0), group_of("b", 0.5, 2.5)]
    metrics = batch_metrics(groups, advantage_is_signal=False)
    assert (metrics["rollout/reward_best"], metrics["groups/reward_best"]) == (2.5, 0.75)
    assert metrics["rollout/reward"] == -0.25
    assert metrics["rollout/reward_error"] == pytest.approx(math.sqrt(((-2 + 0.25) ** 2 + (1.5 + 0.25) ** 2) / 2))
    alone = batch_metrics([group_of("a", 1.0, 2.0, 3.0, 2.0)], advantage_is_signal=False)
    assert alone["rollout/reward_error"] == pytest.approx(math.sqrt(0.5) / 2)


def test_rewards_of_0_and_1_have_the_numbers_of_the_pass_rate() -> None:
    groups = [group_of("a", 1.0, 1.0), group_of("b", 0.0, success=False), group_of("c", 1.0)]
    groups[0].attempts += group_of("a", 0.0, success=False).attempts
    metrics = batch_metrics(groups, advantage_is_signal=False)
    assert metrics["rollout/reward_error"] == metrics["rollout/pass_rate_error"]
    measured = heldout_metrics([a for g in groups for a in g.attempts], "heldout")
    for end in ("", "_low", "_high"):
        assert measured[f"heldout/reward{end}"] == measured[f"heldout/pass@1{end}"]
    assert not tells_more([measured])


def test_held_out_rewards_are_means_over_tasks_without_lost_attempts() -> None:
    attempts = [a for g in (group_of("a", 1.0, 2.0), group_of("b", -4.0, success=False)) for a in g.attempts]
    attempts.append(judged(task_of("b"), 1, Verdict(reward=None, success=False, kind="x", infrastructure_error="away")))
    measured = heldout_metrics(attempts, "heldout")
    assert (measured["heldout/reward"], measured["heldout/reward_best"]) == (-1.25, 2.0)
    assert measured["heldout/reward_low"] < -1.25 < measured["heldout/reward_high"]
    assert measured["heldout/pass@1"] == 0.5
    assert tells_more([measured])
    lost = heldout_metrics(attempts[-1:], "heldout")
    assert math.isnan(lost["heldout/reward"])
    assert math.isnan(lost["heldout/reward_best"])


def evaluated(reward: float) -> dict[str, float]:
    ends = {"heldout/reward_low": reward - 0.25, "heldout/reward_high": reward + 0.25}
    return heldout(0.0) | {"heldout/reward": reward} | ends


def test_results_and_summary_have_the_held_out_reward_where_it_says_more(tmp_path: Path) -> None:
    records = [{"step": 0, **evaluated(1.0)}, step_record(1), step_record(2) | evaluated(1.5)]
    folder = write_report_run(tmp_path / "packing", records)
    result = RunResult(str(folder))
    assert (result.before["reward"], result.after["reward"], result.after["pass@1"]) == (1.0, 1.5, 0.0)
    lines = summary_lines(folder)
    assert "held-out reward" in lines[0]
    assert "reward before: 1.000 (95 % interval 0.750 to 1.250)   reward after: 1.500" in "\n".join(lines)
    plain = write_report_run(tmp_path / "plain", [{"step": 0, **heldout(0.5)}, step_record(1)])
    assert "held-out reward" not in "\n".join(summary_lines(plain))


def test_the_line_of_a_step_has_best_and_held_out_reward_where_they_say_more() -> None:
    state: Any = SimpleNamespace(config=config_of(steps=4), left_s=None)
    metrics = {"rollout/reward": 0.5, "rollout/pass_rate": 1.0, "rollout/reward_best": 1.25, "heldout/pass@1": 0.0}
    assert "best reward 1.250  held-out pass@1 0.000  held-out reward 0.750" in step_line(
        state, 1, metrics | {"heldout/reward": 0.75}
    )
    plain = metrics | {"rollout/pass_rate": 0.5, "heldout/reward": 0.0}
    assert step_line(state, 1, plain) == "step 1/4  reward 0.500  held-out pass@1 0.000"


def test_scores_of_a_checkpoint_in_words() -> None:
    assert scores(None, None) == "held-out pass@1 not measured"
    assert scores(0.5, None) == scores(0.5, 0.5) == "held-out pass@1 0.500"
    assert scores(0.0, 1.1024) == "held-out pass@1 0.000, held-out reward 1.102"

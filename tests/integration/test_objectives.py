"""Whole runs of objectives that ask more of learner and teachers than the demo does."""

import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator.metrics_log import read_metrics
from tests.run_fixtures import RUN_FILE, command, finished, small

pytestmark = pytest.mark.timeout(480)


def records_of(folder: Path, **changes: Any) -> list[dict[str, Any]]:
    """Metrics of two batches, each of them in as many optimizer steps as the config has."""
    output = finished(command(RUN_FILE, *small(folder, steps=2, checkpoint__every_steps=0, **changes)), folder / "log")
    records = read_metrics(folder / "run" / "metrics.jsonl")
    assert [r["step"] for r in records] == [0, 1, 2], output
    return records


def test_students_support_in_mini_batches_with_a_trust_region_and_an_anchor(tmp_path: Path) -> None:
    """Recall, then scores of two teachers with two models each, then a step for every task."""
    records = records_of(
        tmp_path,
        objective__support="student",
        objective__reference_kl=0.05,
        batch__mini_batch_tasks=1,
        teacher__regularisation__kind="trust_region",
        teacher__workers=2,
    )
    taken = 0
    for record in records[1:]:
        assert record["train/steps_taken"] + record["train/steps_idle"] == 4, "one for every task of the batch"
        taken += record["train/steps_taken"]
        assert record["train/optimizer_step"] == taken
        assert record["train/signal_fraction"] == 1
        assert record["train/engine_gap_mean"] < 1e-4, "the recalled policy is the one that sampled"
        assert record["train/reference_kl"] > 0, "of the batch's later steps"
        assert record["train/teacher_kl"] > 0
        assert {"time/recall_s", "time/score_s"} <= record.keys()
        assert "weights/teacher_bytes" not in record, "these teachers follow the policy's stream"
    assert taken > 4
    lines = (tmp_path / "run/samples/step-000002.jsonl").read_text().splitlines()
    samples = [sample for sample in map(json.loads, lines) if "credit" in sample]
    assert len(samples) == records[2]["attempts/trained"]
    for sample in samples:
        assert sample["teacher_version"] == "1.1", "of the first incarnation, after one batch"
        expected = [q - p for q, p in zip(sample["log_q"], sample["log_p"][0], strict=True)]
        assert sample["credit"] == pytest.approx(expected, abs=1e-3)


def test_grpo_in_mini_batches_with_an_anchor(tmp_path: Path) -> None:
    """Teachers that only hold the initial model, and attempts that nobody scores in hindsight."""
    records = records_of(
        tmp_path, objective__kind="grpo", objective__reference_kl=0.05, batch__mini_batch_tasks=2, learner__ranks=2
    )
    for step, record in enumerate(records[1:], 1):
        assert record["train/optimizer_step"] == 2 * step
        assert record["attempts/trained"] == record["attempts/judged"] == 16
        assert record["train/engine_gap_mean"] < 1e-4
        assert record["train/reference_kl"] > 0
        assert "train/teacher_kl" not in record
        assert "hindsight/prompt_tokens" not in record
        assert "time/slowest_group_reference_s" in record
        assert "time/slowest_group_score_s" not in record

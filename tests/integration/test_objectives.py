"""Whole runs of objectives that ask more of learner and teachers than the demo does."""

import itertools
import json
from operator import itemgetter
from pathlib import Path
from typing import Any

import pytest

from orchestrator.run_dir.metrics_log import read_metrics
from tests.fixtures.run import RUN_FILE, command, finished, half_in_turns, small

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


def records_of(folder: Path, **changes: Any) -> list[dict[str, Any]]:
    """Metrics of two batches, each of them in as many optimizer steps as the config has."""
    output = finished(command(RUN_FILE, *small(folder, steps=2, checkpoint__every_steps=0, **changes)), folder / "log")
    records = read_metrics(folder / "run" / "metrics.jsonl")
    assert [r["step"] for r in records] == [0, 1, 2], output
    return records


def test_students_support_in_mini_batches_with_a_trust_region_and_an_anchor(tmp_path: Path) -> None:
    """Recall, then scores of two teachers with two models each, then a step for every task; half the tasks in turns."""
    records = records_of(
        tmp_path,
        tasks__train=half_in_turns(tmp_path / "tasks.jsonl"),
        rollout__sampling__max_response_tokens=240,
        objective__support="student",
        objective__reference_kl=0.05,
        batch__mini_batch_tasks=1,
        teacher__regularisation__kind="trust_region",
        placement__teacher__workers=2,
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
        assert {"time/old_log_probs_s", "time/score_s"} <= record.keys()
        assert "weights/teacher_bytes" not in record, "these teachers follow the policy's stream"
    assert taken > 4
    num_in_turns = 0
    for step in (1, 2):
        lines = (tmp_path / f"run/samples/step-{step:06d}.jsonl").read_text().splitlines()
        samples = [sample for sample in map(json.loads, lines) if sample["teacher"] is not None]
        assert len(samples) == records[step]["attempts/trained"]
        for sample in samples:
            assert sample["teacher"]["version"] == f"1.{step - 1}", "of the first incarnation, after so many batches"
            check_authors_and_log_probs(sample)
        in_turns = [sample for sample in samples if sample["authors"].count("environment")]
        assert all("Write the whole program again, corrected.\n\n[assistant]\n" in s["response"] for s in in_turns)
        num_in_turns += len(in_turns)
    assert num_in_turns >= 4, "attempts of one turn only: the test has lost its point"
    assert 1 < records[1]["rollout/turns"] < 2
    assert records[1]["rollout/environment_tokens"] > 10


def check_authors_and_log_probs(sample: dict[str, Any]) -> None:
    """Turns of the model's end with its stop token, the environment's with the assistant's header; and where the model
    wrote, engine and learner agree on the log-prob."""
    turns = [
        (author, [token for _, token in run])
        for author, run in itertools.groupby(zip(sample["authors"], sample["tokens"], strict=True), itemgetter(0))
    ]
    assert [author for author, _ in turns] == ["model", "environment", "model"][: len(turns)]
    assert len(turns) in (1, 3)
    for author, tokens in turns:
        assert author == "environment" or tokens[-1] == "<|im_end|>" or sample["finish_reason"] == "length"
        if author == "environment":
            text = "".join(tokens)
            assert text.startswith("\n<|im_start|>user\n")
            assert text.endswith("Write the whole program again, corrected.<|im_end|>\n<|im_start|>assistant\n")
    teacher = sample["teacher"]
    rows = list(
        zip(sample["authors"], sample["log_p"], teacher["log_p"], teacher["log_q"], teacher["credit"], strict=True)
    )
    assert all((author == "model") == (value is not None) for author, *values in rows for value in values)
    for engine, learner, log_q, credit in (values for author, *values in rows if author == "model"):
        assert learner == pytest.approx(engine, abs=1e-3)
        assert credit == pytest.approx(log_q - learner, abs=2e-5)


def test_grpo_in_mini_batches_with_an_anchor(tmp_path: Path) -> None:
    """Teachers that only hold the initial model, and attempts that nobody scores in hindsight."""
    records = records_of(
        tmp_path,
        objective__kind="grpo",
        objective__reference_kl=0.05,
        batch__mini_batch_tasks=2,
        placement__learner__ranks=2,
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

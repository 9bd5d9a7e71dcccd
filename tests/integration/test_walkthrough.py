"""docs/environments.md as a stranger follows it: the page's files, the page's commands, in an empty home folder."""

import json
from pathlib import Path

from orchestrator.run_dir.metrics_log import read_metrics
from tests.fixtures.run import ROOT
from tests.fixtures.walkthrough import follow

PAGE = ROOT / "docs" / "environments.md"


def test_the_walk_through_ends_with_a_trained_step_and_the_worlds_words(tmp_path: Path) -> None:
    said = follow(PAGE, tmp_path, timeout_s=600)
    run = tmp_path / "riddles" / "runs" / "riddles"
    steps = [record for record in read_metrics(run / "metrics.jsonl") if "train/loss" in record]
    assert [(record["step"], record["hindsight/with_feedback_fraction"]) for record in steps] == [(1, 1.0)]
    samples = [json.loads(line) for line in (run / "samples" / "step-000001.jsonl").read_text().splitlines()]
    assert {sample["task"] for sample in samples} == {"echo", "candle", "river", "shadow"}
    for sample in samples:
        assert sample["verdict"]["kind"] == "wrong_word"
        assert sample["feedback"].startswith("You said ")
        assert sample["feedback"] in sample["hindsight"]["prompt"]
    assert '"feedback": "You said ' in said
    assert '"id": "echo", "messages": [{"role": "user", "content": "Who answers every call' in said

"""A run that is made to collapse, as a person would see it."""

import json
from pathlib import Path

import pytest

from orchestrator.run_dir.metrics_log import read_metrics
from tests.fixtures.run import RUN_FILE, command, small, started

pytestmark = pytest.mark.timeout(1200)


def test_a_collapse_is_caught_checkpointed_and_ends_the_run(tmp_path: Path) -> None:
    """The teacher is the student itself and the learning rate four times the example's: it learns, then breaks."""
    overrides = small(
        tmp_path,
        steps=24,
        batch__tasks=8,
        batch__samples_per_task=8,
        tasks__heldout="null",
        checkpoint__every_steps=0,
        record__samples_per_step=0,
        teacher__regularisation__kind="live",
        learner__optimizer__learning_rate=3e-3,
        health__on_alarm="stop",
        health__window_steps=3,
    )
    with started(command(RUN_FILE, *overrides), tmp_path / "log") as process:
        code = process.wait(600)
    output = (tmp_path / "log").read_text()
    assert code == 3, output
    records = read_metrics(tmp_path / "run/metrics.jsonl")
    best = max(record.get("rollout/pass_rate", 0.0) for record in records)
    assert best > 0.4, "it had learned something to lose"
    (line,) = (tmp_path / "run/alarms.jsonl").read_text().splitlines()
    alarm = json.loads(line)
    assert alarm["name"] == "pass_rate_collapse"
    assert alarm["step"] == records[-1]["step"] < 24
    assert [record["health/pass_rate_collapse"] for record in records] == [0.0] * (len(records) - 1) + [1.0]
    assert (tmp_path / f"run/checkpoints/step-{alarm['step']:06d}.1/state.json").exists()
    assert f"ALARM pass_rate_collapse at step {alarm['step']}: {alarm['message']}" in output
    last = output.strip().splitlines()[-1]
    assert last.startswith(f"sdpo: stopped after step {alarm['step']} by pass_rate_collapse (health.on_alarm=stop)")
    assert "health.pass_rate_share=0.75" in last
    assert "teacher.regularisation" in last, "it says what to try"

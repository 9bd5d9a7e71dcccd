"""Whole runs on real parts: learning, many of everything, resuming, faults, and stopping."""

import itertools
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from orchestrator.commands.timeline.timeline import timeline
from orchestrator.run_dir.metrics_log import read_metrics
from orchestrator.telemetry.run_telemetry import place_of
from orchestrator.telemetry.trace_log import read_trace
from sdpo.telemetry.labels import ROLES
from tests.fixtures.metrics_page import undocumented
from tests.fixtures.processes import actors, descendants, family, gone
from tests.fixtures.run import (
    RUN_FILE,
    command,
    finished,
    half_in_turns,
    small,
    started,
    wait_for_steps,
)
from tests.fixtures.trace_events import check_trace_events
from tests.fixtures.wandb_files import wandb_rows
from tests.fixtures.watching import live_status, logged_actors, sdpo

pytestmark = pytest.mark.timeout(1200)
HEALTH_METRICS = {
    "signal/samples_fraction",
    "signal/tokens_fraction",
    "groups/success_rate",
    "groups/all_passed_fraction",
    "groups/none_passed_fraction",
    "train/teacher_kl",
    "train/teacher_gap",
    "train/entropy",
    "train/teacher_entropy",
    "train/is_clipped_fraction",
    "train/tis_clipped_fraction",
    "train/grad_norm",
    "train/engine_gap_mean",
    "train/engine_gap_p99",
    "rollout/response_tokens",
    "rollout/feedback_chars",
    "hindsight/demo_chars_cut",
    "hindsight/feedback_chars_cut",
    "hindsight/attempt_chars_cut",
}
"""What every step of an SDPO run tells of its health."""
MACHINE_METRICS = {
    "speed/generated_tokens_per_s",
    "speed/trained_tokens_per_s",
    "time/record_samples_s",
    *(f"memory/{role}_bytes" for role in ("orchestrator", "rollout", "env", "teacher", "learner")),
}
"""What it tells of speed and memory."""


def check_trace(run_dir: Path, records: list[dict[str, Any]]) -> None:
    """Every step left its calls; the time of every role is accounted for; the timeline holds all of it."""
    for step in range(1, 9):
        calls = list(read_trace(run_dir / "trace", step, step))
        assert {call["stage"] for call in calls} >= {"generate", "judge", "score", "train", "publish"}, step
        assert {place_of(call["actor"]) for call in calls} == {"rollout-0", "env-0", "teacher-0", "learner-rank0"}
        for role in ROLES:
            parts = {
                k: v for k, v in records[step].items() if k.startswith((f"time/busy/{role}", f"time/idle/{role}/"))
            }
            assert sum(parts.values()) > 0.9 * records[step]["time/step_s"], (step, role)
    document = timeline(read_trace(run_dir / "trace"))
    calls = check_trace_events(document)["X"]
    assert len(calls) == sum(1 for _ in read_trace(run_dir / "trace"))
    assert any(event["ph"] == "f" for event in document["traceEvents"]), "a task's way through the actors"


def test_a_run_learns_from_feedback(tmp_path: Path) -> None:
    overrides = small(
        tmp_path,
        steps=8,
        batch__tasks=16,
        batch__samples_per_task=8,
        tasks__max_heldout=48,
        evaluation__measure_repair="true",
        health__window_steps=3,
    )
    output = finished(command(RUN_FILE, *overrides), tmp_path / "log")
    records = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert records[-1].keys() >= HEALTH_METRICS | MACHINE_METRICS
    assert undocumented(name for record in records for name in record) == []
    assert not (tmp_path / "run" / "alarms.jsonl").exists(), "learning is no alarm"
    assert [record["health/alarms"] for record in records] == [0.0] * 9
    check_trace(tmp_path / "run", records)
    before, after = records[0]["heldout/pass@1"], records[-1]["heldout/pass@1"]
    assert after >= before + 0.3, output
    assert records[0]["repair/pass@1"] >= 0.8
    assert f"after: {after:.3f} (95 % interval" in output
    model, state = ("model/model.safetensors", "model/tokenizer.json"), "checkpoints/step-000008.1/state.json"
    for name in ("config.yaml", *model, state):
        assert (tmp_path / "run" / name).exists(), name
    assert list((tmp_path / "run" / "tensorboard").iterdir())
    sample = json.loads((tmp_path / "run/samples/step-000001.jsonl").read_text().splitlines()[0])
    assert len(sample["tokens"]) == len(sample["token_ids"]) == len(sample["teacher"]["credit"]) > 1
    assert sample["hindsight"]["prompt"]


@pytest.mark.slow
def test_two_of_everything_stopped_by_ctrl_c_then_resumed_then_with_a_damaged_checkpoint(tmp_path: Path) -> None:
    two: dict[str, Any] = {
        "placement__rollout__workers": 2,
        "placement__teacher__workers": 2,
        "placement__env__min_workers": 2,
        "placement__env__max_workers": 2,
    }
    two |= {"placement__learner__ranks": 2, "checkpoint__every_steps": 0, "record__trackers__wandb__mode": "offline"}
    with started(command(RUN_FILE, *small(tmp_path, steps=500, **two)), tmp_path / "log") as process:
        wait_for_steps(tmp_path / "run", 1, process)
        status = live_status(tmp_path / "run", 1)
        tree = descendants(process.pid)
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(600) == 130, (tmp_path / "log").read_text()
        assert gone(tree) == []
    first = read_metrics(tmp_path / "run" / "metrics.jsonl")
    done = int(max(r["step"] for r in first))
    assert (tmp_path / f"run/checkpoints/step-{done:06d}.1/state.json").exists()
    assert f"stopped after step {done}" in (tmp_path / "log").read_text()
    assert (status["run"], status["active"], status["steps"], status["errors"]) == ("run-1", True, 500, {})
    assert {role: s["serving"] for role, s in status["roles"].items()} == dict.fromkeys(ROLES, 2)
    assert status["version"] in (status["step"], status["step"] + 1)
    assert "no run is active there" in sdpo("status", str(tmp_path / "run")).stderr
    ranks = {f"learner-rank{i}" for i in range(2)}
    others = {f"{role}-{i}" for role in ("rollout", "env", "teacher") for i in range(2)}
    assert logged_actors(tmp_path / "run") == ranks | others | {"orchestrator"}

    output = finished(command(RUN_FILE, *small(tmp_path, steps=done + 1, **two)), tmp_path / "log2")
    records = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert [r["step"] for r in records] == list(range(done + 2)), output
    assert records[:-1] == first, "what was done is kept as it was"
    assert records[-1]["train/optimizer_step"] == done + 1
    tracked = wandb_rows(tmp_path / "run")
    assert [(row["_step"], row.get("train/loss")) for row in tracked] == [
        (r["step"], r.get("train/loss")) for r in records
    ]
    samples = (tmp_path / f"run/samples/step-{done + 1:06d}.jsonl").read_text().splitlines()
    versions = {v for line in samples for v in json.loads(line)["versions"]}
    assert versions == {f"2.{done}"}, "of the second incarnation, after so many batches"
    for record in records[1:]:
        assert record["attempts/sampled"] == record["attempts/judged"] + record["attempts/dropped"] == 16

    shard = next((tmp_path / f"run/checkpoints/step-{done + 1:06d}.2").glob("*.distcp"))
    shard.write_bytes(shard.read_bytes()[:-1] + b"?")
    with started(command(RUN_FILE, *small(tmp_path, steps=done + 2, **two)), tmp_path / "log3") as process:
        assert process.wait(600) == 2
    line = (tmp_path / "log3").read_text().strip().splitlines()[-1]
    assert line.startswith("sdpo: checkpoint ")
    assert shard.name in line
    assert read_metrics(tmp_path / "run" / "metrics.jsonl") == records, "nothing is lost"


def test_the_run_outlives_any_actor_and_leaves_nothing_of_it(tmp_path: Path) -> None:
    overrides = small(
        tmp_path,
        steps=12,
        placement__env__min_workers=2,
        placement__env__max_workers=2,
        tasks__train=half_in_turns(tmp_path / "tasks.jsonl"),
        rollout__sampling__max_response_tokens=240,
    )
    roles = ("EnvWorker", "TeacherWorker", "RolloutWorker", "LearnerRank")
    with started(command(RUN_FILE, *overrides), tmp_path / "log") as process:
        for steps, role in zip(itertools.count(1), roles):
            wait_for_steps(tmp_path / "run", steps, process)
            victim = actors(process.pid, role)[0]
            killed = family(victim.pid)
            os.kill(victim.pid, signal.SIGKILL)
            assert gone(killed) == [], f"of a killed {role} something is left"
        assert process.wait(600) == 0, (tmp_path / "log").read_text()
    assert "going on from the newest checkpoint" in (tmp_path / "log").read_text(), "the learner came back by itself"
    records = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert [r["step"] for r in records] == list(range(13)), "every batch is in the surviving history once"
    assert all(r["attempts/sampled"] == r["attempts/judged"] + r["attempts/dropped"] == 16 for r in records[1:])


def test_a_deadline_that_passes_names_the_actor_keeps_its_stacks_and_ends_the_run(tmp_path: Path) -> None:
    overrides = small(tmp_path, deadlines__train_s=0.001, tasks__heldout="null", checkpoint__every_steps=0)
    with started(command(RUN_FILE, *overrides), tmp_path / "log") as process:
        assert process.wait(600) == 1, (tmp_path / "log").read_text()
    line = (tmp_path / "log").read_text().strip().splitlines()[-1]
    assert line == "sdpo: learner-rank0 did not finish train within 0.001 s"
    stacks = tmp_path / "run/stacks/incarnation-1"
    roles = {file.name.split(".")[0].split("-")[0] for file in stacks.iterdir()}
    assert {"orchestrator", "LearnerRank", "TeacherWorker", "EnvWorker"} <= roles
    assert all("Thread 0x" in file.read_text() for file in stacks.iterdir())

"""metrics.jsonl: what a resumed run keeps, what a reader takes of a file that is being written."""

import json
import math
from pathlib import Path

from orchestrator.run_dir.metrics_log import MetricsLog, read_metrics


def log_of(folder: Path, resumed_steps: int) -> MetricsLog:
    return MetricsLog(folder, resumed_steps=resumed_steps, tensorboard=False)


def test_a_resumed_run_keeps_the_steps_of_its_checkpoint_and_a_new_one_keeps_none(tmp_path: Path) -> None:
    log = log_of(tmp_path, 0)
    for step in range(4):
        log.write(step, {"train/loss": step / 2})
    file = tmp_path / "metrics.jsonl"
    assert read_metrics(file) == [{"step": step, "train/loss": step / 2} for step in range(4)]
    log_of(tmp_path, 2).write(3, {"train/loss": 9.0})
    assert [(r["step"], r["train/loss"]) for r in read_metrics(file)] == [(0, 0.0), (1, 0.5), (2, 1.0), (3, 9.0)]
    log_of(tmp_path, 0)
    assert read_metrics(file) == []


def test_values_that_are_not_finite_are_null_and_floats_come_back_to_the_bit(tmp_path: Path) -> None:
    log = log_of(tmp_path, 0)
    log.write(1, {"nan": math.nan, "inf": -math.inf, "third": 1 / 3, "small": 5e-324})
    (line,) = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert json.loads(line) == {"step": 1, "nan": None, "inf": None, "third": 1 / 3, "small": 5e-324}


def test_a_line_that_was_not_finished_is_left_out_and_cut_off_on_resuming(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    assert read_metrics(file) == []
    file.write_text('{"step": 0}\n{"step": 1}\n{"st')
    assert [r["step"] for r in read_metrics(file)] == [0, 1]
    log_of(tmp_path, 1).write(2, {})
    assert file.read_text() == '{"step": 0}\n{"step": 1}\n{"step": 2}\n'


def test_metrics_newer_than_the_checkpoint_are_discarded_on_resume(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path, resumed_steps=0, tensorboard=False)
    for step in range(4):
        log.write(step, {"a": float(step), "b": float("nan")})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "a"')
    MetricsLog(tmp_path, resumed_steps=2, tensorboard=False).write(3, {"a": 30.0})
    records = read_metrics(tmp_path / "metrics.jsonl")
    assert [(r["step"], r["a"]) for r in records] == [(0, 0.0), (1, 1.0), (2, 2.0), (3, 30.0)]
    assert records[0]["b"] is None
    assert all(json.dumps(r) for r in records)

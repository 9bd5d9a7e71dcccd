"""A whole run of which nothing lies on the machine's disk: run directory, model and tasks are in an S3 server."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli import main
from orchestrator.run_dir.run_view import RunView
from sdpo.storage import Store
from tests.fixtures.run import ROOT, RUN_FILE, command, finished, small
from tests.fixtures.s3_server import BUCKET, S3, s3_server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]
BASE = f"s3://{BUCKET}/team"
RUNS = f"{BASE}/runs"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
    with s3_server() as running:
        for key, value in (running.environment | {"SDPO_CACHE": str(tmp_path / "cache")}).items():
            monkeypatch.setenv(key, value)
        example = ROOT / "examples/tinycoder"
        Store(BASE).upload({f"model/{file.name}": file for file in (example / "model").iterdir()})
        Store(BASE).upload({f"tasks/{file.name}": file for file in (example / "tasks").iterdir()})
        yield running


def test_train_lose_the_machine_go_on_and_report(
    server: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    places: dict[str, Any] = {
        "model__path": f"{BASE}/model",
        "tasks__train": f"{BASE}/tasks/train.jsonl",
        "tasks__heldout": f"{BASE}/tasks/heldout.jsonl",
        "deadlines__start_s": 900,
    }
    finished(command(RUN_FILE, *small(RUNS, **places, steps=2)), tmp_path / "first", 1000)
    assert Store(f"{RUNS}/run").names("checkpoints") == ["step-000001.1", "step-000002.1"]
    shutil.rmtree(os.environ["SDPO_CACHE"])
    shown = finished(command(RUN_FILE, *small(RUNS, **places)), tmp_path / "second", 1000)
    assert f"run directory: {RUNS}/run" in shown
    assert f"model: {RUNS}/run/model" in shown

    view = RunView(f"{RUNS}/run")
    assert [record["step"] for record in view.metrics] == [0, 1, 2, 3]
    assert [kept.steps for kept in view.checkpoints] == [2, 3]
    assert view.sampled_steps == [1, 2, 3]
    state = json.loads(Store(f"{RUNS}/run").read("checkpoints/step-000003.2/state.json") or b"")
    assert state["steps"] == 3
    monkeypatch.chdir(tmp_path)
    assert main(["report", f"{RUNS}/run"]) == 0
    assert "report: report-run.html" in capfd.readouterr().out
    assert f"{RUNS}/run" in (tmp_path / "report-run.html").read_text()
    assert main(["inspect", f"{RUNS}/run", "--limit", "3"]) == 0
    assert main(["export", f"{RUNS}/run", str(tmp_path / "out")]) == 0

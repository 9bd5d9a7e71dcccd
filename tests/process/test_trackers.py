"""Trackers through their real libraries: what arrives, what a run that goes on adds, and what a broken one may do."""

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from orchestrator.events import Event, Message, StepRecorded, emit, listening
from orchestrator.trackers.all import Trackers, open_trackers, tracker_settings
from orchestrator.trackers.process import TrackerProcess
from orchestrator.trackers.protocol import TrackedRun
from sdpo.config.load import make_run_config
from sdpo.errors import ConfigError, RunInterrupted
from tests.fixtures.wandb_files import wandb_rows


class Said:
    """The messages of a run."""

    def __init__(self):
        self.lines = list[str]()

    def hear(self, event: Event) -> None:
        if isinstance(event, Message):
            self.lines.append(event.text)


def config_with(folder: Path, **trackers):
    return make_run_config({"dir": str(folder), "name": "demo", "record": {"trackers": trackers}}, {})


def mlflow_client(folder: Path, monkeypatch):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=f"file://{folder}")


def trackio_rows(folder: Path) -> list[tuple[str, int, dict[str, float]]]:
    with sqlite3.connect(folder / "lab.db") as database:
        rows = database.execute("select run_name, step, metrics from metrics order by step").fetchall()
    return [(name, step, json.loads(metrics)) for name, step, metrics in rows]


def test_a_run_that_goes_on_continues_its_tracked_runs_and_logs_no_step_twice(tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    config = config_with(
        tmp_path,
        wandb={"project": "lab", "mode": "offline"},
        mlflow={"tracking_uri": f"file://{tmp_path}/mlruns", "experiment": "lab"},
        trackio={"project": "lab"},
    )
    run_dir, said = tmp_path / "demo", Said()
    run_dir.mkdir()
    with listening(said.hear):
        with suppress(RunInterrupted), open_trackers(config, tracker_settings(config), run_dir):
            for step in range(4):
                metrics = {"heldout/pass@1": step / 4, "train/loss": float("nan")}
                emit(StepRecorded(step=step, metrics=metrics))
            raise RunInterrupted("stopped after step 3")
        with open_trackers(config, tracker_settings(config), run_dir):
            for step in (3, 4):
                emit(StepRecorded(step=step, metrics={"heldout/pass@1": step / 8}))
    assert said.lines == []
    expected = [(0, 0.0), (1, 0.25), (2, 0.5), (3, 0.75), (4, 0.5)]
    assert [(row["_step"], row["heldout/pass@1"]) for row in wandb_rows(run_dir)] == expected
    assert len({file.name for file in run_dir.glob("wandb/offline-run-*/*.wandb")}) == 1, "one id"

    client = mlflow_client(tmp_path / "mlruns", monkeypatch)
    (tracked,) = client.search_runs([client.get_experiment_by_name("lab").experiment_id])
    history = client.get_metric_history(tracked.info.run_id, "heldout/pass_at_1")
    assert [(point.step, point.value) for point in history] == expected
    assert (tracked.info.status, tracked.info.run_name) == ("FINISHED", "demo")
    assert tracked.data.params["batch.tasks"] == str(config.batch.tasks)
    assert "train/loss" not in tracked.data.metrics

    rows = trackio_rows(tmp_path / "trackio")
    assert [(step, metrics["heldout/pass@1"]) for _, step, metrics in rows] == expected
    assert len({name for name, _, _ in rows}) == 1
    assert rows[0][0].startswith("demo-")


@pytest.fixture
def silent_server():
    """Takes connections and never answers."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def mlflow_process(folder: Path, uri: str, **limits) -> TrackerProcess:
    settings = {"tracking_uri": uri, "experiment": "lab"}
    return TrackerProcess("mlflow", TrackedRun(name="demo", folder=str(folder), config={}, settings=settings), **limits)


def test_a_tracker_that_hangs_is_killed_told_once_and_never_waited_for(tmp_path, silent_server):
    tracker, said = mlflow_process(tmp_path, silent_server, start_s=3.0), Said()
    trackers = Trackers([tracker])
    deadline = time.monotonic() + 60
    with listening(said.hear):
        while not said.lines:
            before = time.monotonic()
            trackers.log(0, {"a": 1.0})
            assert time.monotonic() - before < 1.0
            assert time.monotonic() < deadline
            time.sleep(0.1)
        trackers.log(1, {"a": 1.0})
        trackers.close("finished")
    assert said.lines == ["tracker mlflow is switched off: no answer to start within 3 s (see trackers/mlflow.log)"]
    assert tracker.closed


def test_what_a_library_raises_is_told_and_ends_only_the_tracker(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    said = Said()
    trackers = Trackers([mlflow_process(tmp_path, "http://127.0.0.1:1")])
    trackers.log(0, {"a": 1.0})
    with listening(said.hear):
        trackers.close("finished")
    (line,) = said.lines
    assert line.startswith("tracker mlflow is switched off: MlflowException: ")
    assert "\n" not in line


def test_the_tracker_of_a_run_that_was_killed_closes_its_run_as_failed_and_goes(tmp_path, monkeypatch):
    script = (
        "import sys, time; sys.path.insert(0, 'tests/process'); from pathlib import Path\n"
        "from test_trackers import mlflow_process\n"
        "tracker = mlflow_process(Path(sys.argv[1]), 'file://' + sys.argv[1] + '/mlruns')\n"
        "tracker.log(0, {'a': 1.0}); print(tracker.pid, flush=True); time.sleep(600)"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        deadline = time.monotonic() + 60
        while '"last_step": 0' not in _text(tmp_path / "trackers/mlflow.json"):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        time.sleep(1.0)
        os.kill(parent.pid, signal.SIGKILL)
    child.wait(10)
    client = mlflow_client(tmp_path / "mlruns", monkeypatch)
    (tracked,) = client.search_runs([client.get_experiment_by_name("lab").experiment_id])
    assert (tracked.info.status, tracked.data.metrics) == ("FAILED", {"a": 1.0})


def _text(file: Path) -> str:
    return file.read_text() if file.exists() else ""


def test_a_missing_package_is_bad_input_that_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"record\.trackers\.wandb: the package wandb is missing.*'sdpo\[wandb\]'"):
        tracker_settings(config_with(tmp_path, wandb={}))


def test_an_mlflow_without_an_address_or_with_a_password_is_bad_input(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(ConfigError, match=r"tracking_uri=none: allowed: a URI .* or MLFLOW_TRACKING_URI"):
        tracker_settings(config_with(tmp_path, mlflow={}))
    with pytest.raises(ConfigError, match=r"tracking_uri: holds a secret") as raised:
        config_with(tmp_path, mlflow={"tracking_uri": "http://me:hush@host"})
    assert "hush" not in str(raised.value)

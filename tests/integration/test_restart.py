"""Killed at any moment and resumed, a deterministic run is the same run, to the last bit; a full disk loses nothing.

The moments are random. Their seed is printed; SDPO_KILL_SEED sets it.
"""

import hashlib
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from orchestrator.run_dir.metrics_log import read_metrics
from rollout_workers.process_reaper import segments_of
from tests.fixtures.metrics_page import is_of_the_machine
from tests.fixtures.processes import actors, descendants, environment_of, gone
from tests.fixtures.run import RUN_FILE, command, finished, small, started, wait_for_steps

pytestmark = pytest.mark.timeout(1800)
STEPS = 5
STEP_S = 1.5
"""About what a step takes; a moment to kill at is within twice this time after a step was written down."""


def deterministic(folder: Path, name: str, **changes: Any) -> list[str]:
    settings = {"name": name, "steps": STEPS, "deterministic": "true", "evaluation__every_steps": 2} | changes
    return command(RUN_FILE, *small(folder, **settings))


def what_counts(run_dir: Path) -> tuple[list[dict[str, Any]], str]:
    """Every metric of every step but what hangs on clock or memory, as exact floats; and the final weights' SHA-256."""
    records = [
        {key: value for key, value in record.items() if not is_of_the_machine(key)}
        for record in read_metrics(run_dir / "metrics.jsonl")
    ]
    return records, hashlib.sha256((run_dir / "model/model.safetensors").read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[dict[str, Any]], str]:
    folder = tmp_path_factory.mktemp("undisturbed")
    finished(deterministic(folder, "run"), folder / "log", timeout_s=600)
    records, digest = what_counts(folder / "run")
    assert [r["step"] for r in records] == list(range(STEPS + 1))
    assert len({r["train/loss"] for r in records[1:]}) == STEPS, "the steps are told apart"
    return records, digest


class Killer:
    """Picks moments; kills the driver and looks after what it leaves."""

    def __init__(self) -> None:
        seed = int(os.environ.get("SDPO_KILL_SEED", random.randrange(10**6)))
        print(f"SDPO_KILL_SEED={seed}")
        self.random = random.Random(seed)

    def while_starting(self, run_dir: Path, process: subprocess.Popen[bytes]) -> None:
        time.sleep(self.random.uniform(1, 25))

    def in_a_step(self, run_dir: Path, process: subprocess.Popen[bytes]) -> None:
        """Sampling, judging, scoring, training, publishing: one of the first steps that come next."""
        done = max((r["step"] for r in read_metrics(run_dir / "metrics.jsonl")), default=-1)
        wait_for_steps(run_dir, min(done + 1, STEPS - 2), process, timeout_s=400)
        time.sleep(self.random.uniform(0, 2 * STEP_S))

    def while_saving(self, run_dir: Path, process: subprocess.Popen[bytes]) -> None:
        """With a checkpoint half written."""
        deadline_s, left_before = time.monotonic() + 400, unfinished(run_dir)
        while newest_folder(run_dir) not in unfinished(run_dir) - left_before:
            assert process.poll() is None, "it ended without a checkpoint"
            assert time.monotonic() < deadline_s
            time.sleep(0.001)
        time.sleep(self.random.uniform(0, 0.05))


def run_and_kill(
    arguments: list[str], run_dir: Path, wait: Callable[[Path, subprocess.Popen[bytes]], None]
) -> list[psutil.Process]:
    """Kill the driver, and nothing else, at the moment that `wait` chooses. What it leaves must not stay."""
    with started(arguments, run_dir.parent / f"log-{time.time()}") as process:
        wait(run_dir, process)
        assert process.poll() is None, "the run ended before it was killed"
        family = descendants(process.pid)
        traces = segments_of([p.pid for p in family]) | scratch_folders(family)
        process.send_signal(signal.SIGKILL)
        process.wait(10)
        done = [r["step"] for r in read_metrics(run_dir / "metrics.jsonl")]
        print(f"killed {wait.__name__} after step {max(done, default=None)}, unfinished: {len(unfinished(run_dir))}")
    deadline_s = time.monotonic() + 15
    while any(path.exists() for path in traces) and time.monotonic() < deadline_s:
        time.sleep(0.1)
    assert [path for path in traces if path.exists()] == []
    return family


def unfinished(run_dir: Path) -> set[str]:
    """Checkpoints that were not committed."""
    return {path.name for path in (run_dir / "checkpoints").glob("step-*") if not (path / "state.json").exists()}


def newest_folder(run_dir: Path) -> str:
    """The checkpoint that was begun last; older ones without state.json are being removed."""
    return max((path.name for path in (run_dir / "checkpoints").glob("step-*")), default="")


def scratch_folders(processes: list[psutil.Process]) -> set[Path]:
    """Where their engines keep sockets."""
    found = set()
    for process in processes:
        folder = environment_of(process).get("VLLM_RPC_BASE_PATH")
        if folder:
            found.add(Path(folder))
    return found


def test_a_run_killed_twice_and_resumed_is_the_run_that_was_not(
    tmp_path: Path, undisturbed: tuple[list[dict[str, Any]], str]
) -> None:
    killer, arguments, run_dir = Killer(), deterministic(tmp_path, "run"), tmp_path / "run"
    families = [run_and_kill(arguments, run_dir, wait) for wait in (killer.in_a_step, killer.while_saving)]
    assert gone([p for family in families for p in family]) == [], "nothing of a killed start is left"
    finished(arguments, tmp_path / "log", timeout_s=600)
    assert (run_dir / "incarnation").read_text() == "3"
    assert what_counts(run_dir) == undisturbed
    assert unfinished(run_dir) == set()


@pytest.mark.longest
def test_a_run_killed_at_many_moments_is_the_run_that_was_not(
    tmp_path: Path, undisturbed: tuple[list[dict[str, Any]], str]
) -> None:
    killer, arguments, run_dir = Killer(), deterministic(tmp_path, "run"), tmp_path / "run"
    moments = [killer.while_starting, killer.in_a_step, killer.in_a_step, killer.while_saving, killer.in_a_step]
    families = [run_and_kill(arguments, run_dir, wait) for wait in moments]
    finished(arguments, tmp_path / "log", timeout_s=600)
    assert gone([p for family in families for p in family]) == []
    assert what_counts(run_dir) == undisturbed


@pytest.mark.longest
def test_with_two_of_everything_and_a_rollout_worker_killed_in_a_batch(tmp_path: Path) -> None:
    two = {
        "placement__rollout__workers": 2,
        "placement__teacher__workers": 2,
        "placement__env__min_workers": 2,
        "placement__learner__ranks": 2,
        "batch__samples_per_task": 8,
        "rollout__max_num_seqs": 8,
    }
    finished(deterministic(tmp_path, "quiet", **two), tmp_path / "log-quiet", timeout_s=600)
    killer, arguments, run_dir = Killer(), deterministic(tmp_path, "run", **two), tmp_path / "run"

    def kill_a_worker_then_wait(run_dir: Path, process: subprocess.Popen[bytes]) -> None:
        wait_for_steps(run_dir, 1, process, timeout_s=400)
        time.sleep(killer.random.uniform(0, STEP_S))
        actors(process.pid, "RolloutWorker")[killer.random.randrange(2)].kill()
        wait_for_steps(run_dir, 3, process, timeout_s=400)

    run_and_kill(arguments, run_dir, kill_a_worker_then_wait)
    finished(arguments, tmp_path / "log", timeout_s=600)
    assert what_counts(run_dir) == what_counts(tmp_path / "quiet")


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_the_newest_checkpoint_goes_on_elsewhere(tmp_path: Path) -> None:
    """The disk is a real one, of 24 MiB: there is room for one checkpoint of the embedded model and not for two."""
    small_disk, log, saved = tmp_path / "disk", tmp_path / "log", tmp_path / "saved"
    small_disk.mkdir()
    run = command(RUN_FILE, *small(small_disk, steps=3, checkpoint__keep_last=1, tasks__heldout="null"))
    script = (
        f'mount -t tmpfs -o size=24m none {small_disk} && {{ "$@"; code=$?; cp -a {small_disk} {saved}; exit $code; }}'
    )
    namespace = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--mount"]
    assert shutil.which("unshare"), "util-linux is needed to mount a small disk"
    with started([*namespace, "sh", "-c", script, "sh", *run], log) as process:
        code = process.wait(300)
    text = log.read_text()
    assert code == 1, text
    assert text.strip().splitlines()[-1] == (
        f"sdpo: {small_disk}/run: no space left on the disk; the newest checkpoint, step-000001.1, is whole; "
        "free some space and run it again to go on"
    )
    assert "Traceback" not in text
    assert [path.name for path in (saved / "run/checkpoints").iterdir()] == ["step-000001.1"]
    before = read_metrics(saved / "run/metrics.jsonl")
    finished(command(RUN_FILE, *small(saved, steps=2, tasks__heldout="null")), tmp_path / "log2")
    after = read_metrics(saved / "run/metrics.jsonl")
    assert [r["step"] for r in after] == [0, 1, 2]
    assert after[:2] == before[:2]
    assert after[2]["train/optimizer_step"] == 2

"""Runs as jobs of a real cluster with a token, submitted from a Python that has `ray[default]` and nothing else."""

import os
import re
import shlex
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from orchestrator.run_dir.metrics_log import read_metrics
from rollout_workers.process_reaper import segments_of
from tests.fixtures.docs_blocks import DOCS, blocks_of
from tests.fixtures.laptop import PYTHON, RAY, make_laptop
from tests.fixtures.processes import command_of, gone
from tests.fixtures.ray_head import Head, ray_head
from tests.fixtures.run import ROOT, RUN_FILE, small, started, wait_for_steps

RAYS_OWN = ("ray::IDLE", "ray::DashboardAgent", "ray::RuntimeEnvAgent", "ray::JobSupervisor")
SECRET = "s3cr3t-of-the-nodes-4711"


class Laptop:
    """Commands of a person who has the repository, `ray[default]` and the cluster's token."""

    def __init__(self, head: Head, folder: Path) -> None:
        self.head = head
        self.own = head.processes()
        """Ray's, before there is a job."""
        self.environment = make_laptop(folder) | head.client

    def submit(self, *arguments: str) -> list[str]:
        command = [*PYTHON, "deploy/submit.py", "--address", self.head.dashboard, *arguments]
        return ["env", "-i", *(f"{k}={v}" for k, v in self.environment.items()), *command]

    def ray(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`ray job …`, with both streams in stdout."""
        command = [*RAY, "job", arguments[0], "--address", self.head.dashboard, *arguments[1:]]
        return self._ended(command, {})

    def documented(self, runs: Path, command: str, *overrides: str) -> subprocess.CompletedProcess[str]:
        """The block of docs/jobs.md that begins with `command`, with more overrides at its end."""
        [block] = [b for b in blocks_of(DOCS / "jobs.md") if b.mark == "run by" and b.text.startswith(command)]
        tools = "".join(f'{name}() {{ {shlex.join(how)} "$@"; }}\n' for name, how in (("ray", RAY), ("python", PYTHON)))
        places = {"HEAD": self.head.dashboard, "RUNS": str(runs)}
        return self._ended(["bash", "-c", f"{tools}{block.text.rstrip()} {shlex.join(overrides)}"], places)

    def _ended(self, command: list[str], more: dict[str, str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=ROOT,
            env=self.environment | more,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=600,
            check=False,
        )


@pytest.fixture(scope="module")
def laptop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laptop]:
    with ray_head(NODES_OWN_TOKEN=SECRET) as head:
        yield Laptop(head, tmp_path_factory.mktemp("laptop") / "packages")


@contextmanager
def submitted(laptop: Laptop, log: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """The process of submit.py, which follows the job, and the submission's id."""
    with started(laptop.submit(RUN_FILE, *arguments), log) as process:
        deadline = time.monotonic() + 300
        while not (found := re.search(r"^submitted: (\S+)$", log.read_text(), re.MULTILINE)):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        yield process, found[1]


def rows(head: Head, kind: str, **wanted: str) -> list[dict[str, Any]]:
    """Of Ray's state API: those whose columns are as wanted."""
    found: list[dict[str, Any]] = head.get(f"/api/v0/{kind}?detail=1&limit=1000").json()["data"]["result"]["result"]
    return [row for row in found if all(row[column] == value for column, value in wanted.items())]


def workers(laptop: Laptop) -> list[psutil.Process]:
    """Processes of runs: their drivers, actors, and what these have started."""
    commands = {p: command_of(p) for p in laptop.head.processes() if p not in laptop.own}
    return [p for p, command in commands.items() if command and not " ".join(command).startswith(RAYS_OWN)]


def nothing_left(laptop: Laptop, segments: set[Path], within_s: float = 30.0) -> None:
    """No process, actor, placement group or shared memory of a run is left."""
    head = laptop.head
    assert gone(workers(laptop), within_s) == []
    deadline = time.monotonic() + within_s
    while True:
        actors = [a["name"] for a in rows(head, "actors", state="ALIVE") if a["class_name"] != "JobSupervisor"]
        groups = [g["name"] for g in rows(head, "placement_groups") if g["state"] != "REMOVED"]
        left = actors, groups, [segment for segment in segments if segment.exists()]
        if left == ([], [], []):
            return
        assert time.monotonic() < deadline, left
        time.sleep(0.5)


def last_step(run_dir: Path) -> int:
    return int(read_metrics(run_dir / "metrics.jsonl")[-1]["step"])


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_a_run_is_stopped_killed_and_resumed_as_a_job(laptop: Laptop, tmp_path: Path) -> None:
    run_dir, head = tmp_path / "run", laptop.head
    small_run = small(tmp_path, checkpoint__every_steps=2, tasks__max_heldout=4)
    with submitted(laptop, tmp_path / "first.log", *small_run, "steps=500") as (process, job):
        wait_for_steps(run_dir, 2, process, 500)
        assert [
            a["name"] for a in rows(head, "actors", state="ALIVE", ray_namespace="run-1", class_name="ControlActor")
        ] == ["orchestrator"]
        second = laptop.documented(tmp_path, "python deploy/submit.py", *small_run, "steps=500")
        assert second.returncode == 2, second.stdout
        assert re.search(r"FAILED: sdpo: .*run.* live run", second.stdout), second.stdout
        segments = segments_of([p.pid for p in workers(laptop)])
        assert segments
        began = time.monotonic()
        assert laptop.ray("stop", job).returncode == 0
        assert process.wait(300) == 130
        print(f"ray job stop: {time.monotonic() - began:.1f} s")
        nothing_left(laptop, segments)
    log = (tmp_path / "first.log").read_text()
    assert "stopping: the step is finished" in log
    done = last_step(run_dir)
    assert f"sdpo: stopped after step {done}; run it again" in log
    assert re.search(r": STOPPED.*\s*$", log), log
    assert (run_dir / "checkpoints" / f"step-{done:06d}.1/state.json").exists()

    with submitted(laptop, tmp_path / "again.log", *small_run, "steps=500") as (process, _):
        wait_for_steps(run_dir, done + 3, process, 500)
        [driver] = [p for p in workers(laptop) if command_of(p)[1:3] == ["-m", "orchestrator"]]
        segments = segments_of([p.pid for p in workers(laptop)])
        driver.kill()
        assert process.wait(300) == 137
        nothing_left(laptop, segments)

    goal = last_step(run_dir) + 2
    ended = laptop.documented(tmp_path, "ray job submit", *small_run, f"steps={goal}")
    assert ended.returncode == 0, ended.stdout
    assert f"step {goal}/{goal}  reward" in ended.stdout, "the job's log streams"
    assert "succeeded" in ended.stdout
    assert f"step {done}/" not in ended.stdout, "it went on where the killed one had its checkpoint"
    steps = [record["step"] for record in read_metrics(run_dir / "metrics.jsonl")]
    assert steps == list(range(goal + 1))
    nothing_left(laptop, set())


@pytest.mark.slow
def test_bad_input_is_one_line_in_the_jobs_message_and_no_secret_is_shown(laptop: Laptop, tmp_path: Path) -> None:
    run = ["sdpo", "train", RUN_FILE, f"dir={tmp_path}", "modell.path=x", "record.api_key=hidden-4712"]
    began = time.monotonic()
    ended = laptop.ray("submit", "--submission-id", "bad", "--working-dir", ".", "--", *run)
    print(f"ray job submit, round trip of a run that is refused: {time.monotonic() - began:.1f} s")
    reason = "sdpo: record.api_key: holds a secret; allowed: values without, secrets belong in environment variables"
    assert ended.returncode == 1
    assert reason in ended.stdout
    assert laptop.ray("status", "bad").stdout.strip().endswith(reason)
    info = laptop.head.get("/api/jobs/bad").json()
    assert (info["status"], info["driver_exit_code"]) == ("FAILED", 2)

    relative = laptop.ray("submit", "--working-dir", ".", "--", "sdpo", "train", RUN_FILE)
    assert "sdpo: dir=runs: is in the job's working directory" in relative.stdout

    looks = "import os; print('the nodes own token has', len(os.environ['NODES_OWN_TOKEN']), 'characters')"
    ended = laptop.ray("submit", "--", "python", "-c", looks)
    assert f"the nodes own token has {len(SECRET)} characters" in ended.stdout
    shown = "".join(
        laptop.head.get(page, agent).text
        for agent in ("python", "Mozilla/5.0")
        for page in ("/api/jobs/", "/api/v0/runtime_envs?detail=1", "/api/v0/actors?detail=1", "/nodes?view=summary")
    )
    logs = "".join(f.read_text(errors="replace") for f in laptop.head.logs.rglob("*") if f.is_file())
    assert SECRET not in shown + logs
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_submit_refuses_what_the_cluster_would_and_names_what_is_missing(laptop: Laptop) -> None:
    secret = {**laptop.environment, "MY_API_KEY": "hidden-4713"}
    cases = {
        ("steps=x",): "steps=x",
        ("dir=runs",): "dir=runs: is in the uploaded working directory",
        ("dir=/x", "--env", "MY_API_KEY"): "--env=MY_API_KEY: looks like a secret",
        ("dir=/x", "--env", "NOT_SET"): "--env=NOT_SET: allowed: the name of a variable",
        ("model.path=s3://user:pass@bucket/x",): "model.path: holds a secret",
    }
    for arguments, line in cases.items():
        command = [*PYTHON, "deploy/submit.py", "--address", laptop.head.dashboard, RUN_FILE, *arguments]
        ended = subprocess.run(command, cwd=ROOT, env=secret, capture_output=True, text=True, timeout=120, check=False)
        assert ended.returncode == 2, ended.stderr
        assert line in ended.stderr
        assert "pass@" not in ended.stderr
        assert len(ended.stderr.splitlines()) == 1
    stranger = {k: v for k, v in laptop.environment.items() if not k.startswith("RAY_")}
    command = [*PYTHON, "deploy/submit.py", "--address", laptop.head.dashboard, RUN_FILE, f"dir={os.sep}x"]
    ended = subprocess.run(command, cwd=ROOT, env=stranger, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 1
    assert "requires its token" in ended.stderr
    assert "RAY_AUTH_TOKEN_PATH" in ended.stderr

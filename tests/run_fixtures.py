"""Whole runs as a person starts them: a process of their own, watched from outside."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from orchestrator.metrics_log import read_metrics

ROOT = Path(__file__).parents[1]
RUN_FILE = "examples/tinycoder.yaml"


def command(run_file: str | Path, *overrides: str) -> list[str]:
    """`sdpo train …` with the interpreter that runs the tests."""
    return [sys.executable, "-m", "orchestrator", "train", str(run_file), *overrides]


def small(folder: Path | str, **changes: Any) -> list[str]:
    """Overrides that make a run of the embedded model small; `changes` use `__` for dots."""
    settings: dict[str, Any] = {
        "dir": folder,
        "name": "run",
        "steps": 3,
        "batch__tasks": 4,
        "batch__samples_per_task": 4,
        "tasks__max_heldout": 16,
        "evaluation__samples_per_task": 1,
        "evaluation__every_steps": 0,
        "evaluation__measure_repair": "false",
        "checkpoint__every_steps": 1,
    } | changes
    return [f"{key.replace('__', '.')}={value}" for key, value in settings.items()]


def half_in_turns(file: Path) -> Path:
    """Eight of the demo's tasks; every second one gives two tries, with the feedback on the first one between them."""
    tasks = [json.loads(line) for line in (ROOT / "examples/tinycoder/tasks/train.jsonl").read_text().splitlines()[:8]]
    for task in tasks[::2]:
        task["environment"] = "code_retry"
        task["payload"]["max_tries"] = 2
    file.write_text("".join(json.dumps(task) + "\n" for task in tasks))
    return file


@contextmanager
def started(arguments: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The process, in a group of its own as a terminal would make it; killed at the end if it still runs."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            arguments,
            cwd=ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        tree = descendants(process.pid)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)
        for child in tree:
            if child.is_running():
                child.kill()


def finished(arguments: list[str], log: Path, timeout_s: float = 500) -> str:
    """Run to the end; returns the output. Fails with the output if the exit code is not 0."""
    with started(arguments, log) as process:
        code = process.wait(timeout_s)
    text = log.read_text()
    assert code == 0, text
    return text


def descendants(pid: int) -> list[psutil.Process]:
    """Every living process under `pid`."""
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def actors(pid: int, class_name: str) -> list[psutil.Process]:
    """The actor processes of a class that belong to a run."""
    found = []
    for process in descendants(pid):
        try:
            if process.cmdline()[:1] and process.cmdline()[0].startswith(f"ray::{class_name}"):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
    return found


def wait_for_steps(run_dir: Path, steps: int, process: subprocess.Popen[bytes], timeout_s: float = 500) -> None:
    """Return once metrics.jsonl holds `steps`; fails if the run ends or the deadline passes before."""
    deadline = time.monotonic() + timeout_s
    while not any(r["step"] >= steps for r in read_metrics(run_dir / "metrics.jsonl")):
        assert process.poll() is None, f"the run ended with {process.returncode} before step {steps}"
        assert time.monotonic() < deadline, f"step {steps} was not reached within {timeout_s} s"
        time.sleep(0.2)


def gone(processes: list[psutil.Process], within_s: float = 10.0) -> list[psutil.Process]:
    """Those of `processes` that still run after `within_s`."""
    _, alive = psutil.wait_procs(processes, timeout=within_s)
    return [p for p in alive if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]

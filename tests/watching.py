"""Watching a whole run from outside, as a person does."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.run_fixtures import ROOT


def sdpo(*arguments: str, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own."""
    command = [sys.executable, "-m", "orchestrator", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout_s)


def live_status(run_dir: Path, steps: int, timeout_s: float = 120) -> dict[str, Any]:
    """What `sdpo status` says once it has heard of so many steps; fails if that takes too long."""
    deadline_s = time.monotonic() + timeout_s
    while True:
        answer = sdpo("status", str(run_dir), "--json")
        runs = json.loads(answer.stdout) if answer.returncode == 0 else []
        if runs and runs[0]["step"] >= steps:
            assert len(runs) == 1
            status: dict[str, Any] = runs[0]
            return status
        assert time.monotonic() < deadline_s, answer.stdout + answer.stderr
        time.sleep(1)


def logged_actors(run_dir: Path) -> set[str]:
    """Who has a line in `sdpo logs`, whose lines are in order."""
    lines = sdpo("logs", str(run_dir)).stdout.splitlines()
    assert lines == sorted(lines, key=lambda line: line.split()[0])
    return {line.split()[2] for line in lines}

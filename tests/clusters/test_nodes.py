"""Nodes that are added and lost under the env pool, on clusters of several Ray nodes on this machine."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def story_of(program: str, timeout_s: float = 280.0) -> dict[str, Any]:
    """Return the report of a program of `clusters/`, which has a Ray of its own, apart from this process's."""
    own = {"RAY_AUTH_MODE": "disabled", "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0"}
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"} | own
    command = [sys.executable, "-m", f"tests.clusters.{program}"]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=timeout_s, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    story: dict[str, Any] = json.loads([line for line in done.stdout.splitlines() if line.startswith("{")][-1])
    return story


def test_waiting_env_workers_add_a_node_and_release_it() -> None:
    story = story_of("autoscaled")
    assert story["may_come"] == {"env": 2}, "what the autoscaler may add is known before it does"
    assert story["came"] >= 1
    assert story["came"] + story["still_may_come"] == 2
    assert story["first_nodes"] == 1
    assert story["resources"] == [["CPU", "env_slot"]], "a node for env workers needs no GPU"
    assert story["passed"] == 60


def test_attempts_outlive_the_node_of_all_env_workers() -> None:
    story = story_of("node_loss")
    assert story["passed"] == 24
    assert story["broken"] == []
    assert story["replaced"] == [1, 1]
    assert story["counted"] == [0, 0], "the loss of a node counts against no worker"
    assert story["states"] == {"serving": 2, "pending": 0, "draining": 0}

"""deploy/ray/cluster.yaml started for real: by Ray's AWS code against its API, and by Ray's fake provider."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


def told_by(program: str, timeout_s: float) -> Any:
    """What a program of `clusters/` reports. It has its own Ray, which must not meet this process's."""
    own = {"RAY_AUTH_MODE": "disabled", "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0"}
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"} | own
    command = [sys.executable, "-m", f"tests.clusters.{program}"]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=timeout_s, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads([line for line in done.stdout.splitlines() if line[:1] in ("{", "[")][-1])


@pytest.mark.slow
def test_rays_aws_code_launches_an_instance_of_each_node_type() -> None:
    launched = {node.pop("type"): node for node in told_by("aws_api", 280)}
    assert {name: node["instance"] for name, node in launched.items()} == {
        "ray.head.default": "m7i.2xlarge",
        "gpu.learner": "g6e.12xlarge",
        "gpu.rollout": "g6e.12xlarge",
        "cpu.env": "c7i.4xlarge",
    }
    assert all(node["groups"] == 1 for node in launched.values())
    assert launched["ray.head.default"]["resources"]["CPU"] == 0
    kinds = ("CPU", "GPU", "env_slot")
    offers = {name: [node["resources"].get(kind, 0) for kind in kinds] for name, node in launched.items()}
    assert offers["cpu.env"] == [16, 0, 16]
    assert offers["gpu.learner"] == offers["gpu.rollout"] == [48, 4, 0]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_nodes_of_every_type_come_for_a_submitted_run_and_go_when_idle() -> None:
    story = told_by("fake_cloud", 800)
    assert story["code"] == 0, story["said"]
    assert story["most"] == {"head": 1, "learner": 1, "rollout": 1, "env": 2}
    assert story["env_workers"][-1] == 3, "two have room on the first node: the run's load brought a node and a worker"
    print(json.dumps({key: round(value, 1) for key, value in story.items() if key.endswith("_s")}))

"""The actor `orchestrator` in a Ray of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fixtures.run import ROOT


@pytest.mark.slow
def test_a_run_is_stopped_through_its_actor(tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"} | {"RAY_AUTH_MODE": "disabled"}
    command = [sys.executable, "-m", "tests.clusters.control_actor", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    story = json.loads(done.stdout.splitlines()[-1])
    assert story["namespace"] == "a-run-7"
    assert "the control actor does not answer; the run continues" in story["warning"]
    assert (story["asked_before"], story["asked_once"], story["asked_now"]) == (0, 1, 2)
    assert story["asked_after_death"] == 1, "what was heard is not heard twice"
    assert story["heard"] and story["heard_again"] and story["heard_after_death"] and story["heard_now"]  # noqa: PT018
    assert story["left"] == {}, "it goes with the run"
    assert story["asked_by_file"] == 1
    assert not (tmp_path / "stop").exists()

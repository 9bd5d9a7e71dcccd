"""Folders of any name, a run directory that is renamed between stop and resume, and a model that is exchanged."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.run_dir.metrics_log import read_metrics
from tests.fixtures.run import ROOT, RUN_FILE, command, small

ODD = "jürgen [a]*? \"x' b:c#d %s {y} $z"


def done(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.slow
def test_a_run_in_folders_of_odd_names_is_renamed_resumed_and_evaluated(tmp_path: Path) -> None:
    odd = tmp_path / ODD
    model = shutil.copytree(ROOT / "examples/tinycoder/model", odd / "m")
    heldout = shutil.copy(ROOT / "examples/tinycoder/tasks/heldout.jsonl", odd / "heldout.jsonl")
    settings = {"batch__tasks": 2, "batch__samples_per_task": 2, "tasks__max_heldout": 2, "steps": 1}
    paths = {"model__path": model, "tasks__heldout": heldout, "name": "20251128"}
    first = done(command(RUN_FILE, *small(odd / "runs", **settings, **paths)))
    assert first.returncode == 0, first.stderr
    renamed = (odd / "runs/20251128").rename(odd / "runs/1e5")
    second = done(command(renamed / "config.yaml", "steps=2"))
    assert second.returncode == 0, second.stderr
    assert [record["step"] for record in read_metrics(renamed / "metrics.jsonl")] == [0, 1, 2]
    assert [path.name for path in (odd / "runs").iterdir()] == ["1e5"]
    result = odd / "result.json"
    evaluate = [sys.executable, "-m", "orchestrator", "eval", str(renamed), str(heldout), "--limit", "2"]
    evaluated = done([*evaluate, f"--out={result}"])
    assert evaluated.returncode == 0, evaluated.stderr
    assert json.loads(result.read_text())
    weights = Path(model) / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    refused = done(command(renamed / "config.yaml", "steps=3"))
    assert refused.returncode == 2
    assert "its weights changed since the run in" in refused.stderr

"""docs/python.md as a notebook runs it: the page's sweep, in a process whose event loop is running."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.api import open_run
from tests.fixtures.run import ROOT
from tests.fixtures.walkthrough import files_of

pytestmark = pytest.mark.timeout(1200)
SWEEP = files_of(ROOT / "docs/python.md")["~/sweep.py"]
NOTEBOOK = """
import asyncio, os, psutil, ray, runpy, sys, tempfile, threading
from pathlib import Path

async def cell():
    runpy.run_path(sys.argv[1], run_name="__main__")

asyncio.run(cell())
assert not ray.is_initialized()
left = [thread.name for thread in threading.enumerate() if thread.name.startswith("sdpo")]
paths = [path for path in sys.path if "sdpo-code-" in path]
assert not left and not paths, (left, paths)
assert not any(key.startswith("SDPO_") for key in os.environ)
_, alive = psutil.wait_procs(psutil.Process().children(recursive=True), timeout=15)
assert not alive, alive
"""


@pytest.mark.slow
def test_the_sweep_of_the_page_in_a_running_event_loop(tmp_path: Path) -> None:
    (tmp_path / "sweep.py").write_text(SWEEP)
    done = subprocess.run(
        [sys.executable, "-c", NOTEBOOK, str(tmp_path / "sweep.py")],
        cwd=ROOT,
        env={**os.environ, "HOME": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=560,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    for rate in ("0.0003", "0.001"):
        result = open_run(tmp_path / "sweep" / f"rate-{rate}")
        assert f"{rate}: held-out {result.before['pass@1']:.2f} -> {result.after['pass@1']:.2f}" in done.stdout
        assert result.config.learner.optimizer.learning_rate == float(rate)
        assert [step for step, _ in result.series("train/loss")] == [1, 2]
        assert len(list(result.samples(result.sampled_steps[-1]))) > 0
        assert result.model is not None
    assert f"{result.model} {result.path / 'report.html'}" in done.stdout
    assert (result.path / "report.html").stat().st_size > 10_000

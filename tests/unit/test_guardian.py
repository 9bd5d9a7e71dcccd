"""What a killed process leaves is removed, also what does not show whose it is."""

import subprocess
import sys
from pathlib import Path

import psutil

from tests.run_fixtures import gone

OWNER = """
import subprocess, sys, time
from pathlib import Path
from rollout_workers.guardian import Guardian
guardian = Guardian(Path(sys.argv[1]))
child = subprocess.Popen(["sh", "-c", "env -i sleep 100 & wait"])
print(child.pid, flush=True)
time.sleep(100)
"""


def test_descendants_without_the_token_go_as_well(tmp_path: Path) -> None:
    """A title overwrites a process's environment, and the token with it; here `env -i` leaves it out."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    bystander = subprocess.Popen(["sleep", "100"])
    owner = subprocess.Popen([sys.executable, "-c", OWNER, str(scratch)], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    shell = psutil.Process(int(owner.stdout.readline()))
    try:
        _, alive = psutil.wait_procs([shell], timeout=2.5)  # the guardian looks every second
        assert alive == [shell]
        family = [shell, *shell.children(recursive=True)]
        assert len(family) == 2
        owner.kill()
        owner.wait(10)
        assert gone(family) == []
        assert bystander.poll() is None
        assert not scratch.exists()
    finally:
        for process in (owner, bystander):
            process.kill()
            process.wait(10)

"""The reaper kills what a killed process has started, also processes without its token."""

import subprocess
import sys
from pathlib import Path

import psutil

from tests.fixtures.processes import family, gone

OWNER = """
import subprocess, sys, time
from pathlib import Path
from rollout_workers.process_reaper import ProcessReaper
reaper = ProcessReaper(Path(sys.argv[1]))
child = subprocess.Popen(["sh", "-c", "env -i sleep 100 & wait"])
print(child.pid, flush=True)
time.sleep(100)
"""


def test_descendants_without_the_token_are_killed_as_well(tmp_path: Path) -> None:
    """A title overwrites a process's environment, and the token with it; here `env -i` leaves it out."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    bystander = subprocess.Popen(["sleep", "100"])
    owner = subprocess.Popen([sys.executable, "-c", OWNER, str(scratch)], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    shell = psutil.Process(int(owner.stdout.readline()))
    try:
        _, alive = psutil.wait_procs([shell], timeout=2.5)  # the reaper looks every second
        assert alive == [shell]
        processes = family(shell.pid)
        assert len(processes) == 2
        owner.kill()
        owner.wait(10)
        assert gone(processes) == []
        assert bystander.poll() is None
        assert not scratch.exists()
    finally:
        for process in (owner, bystander):
            process.kill()
            process.wait(10)

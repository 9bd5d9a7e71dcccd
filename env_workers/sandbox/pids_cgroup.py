"""A limit on processes for the sandbox of a worker that is host root, for which RLIMIT_NPROC does not hold.

Each sandbox has a control group under the root of the pids hierarchy (version 1) or of the unified one (version 2).
Without it a fork bomb on a busy machine grows faster than the runner can kill, which counts processes every few
milliseconds.
"""

import contextlib
import itertools
import os
import time
from pathlib import Path

CLOSE_S = 1.0
_PREFIX = "sdpo-sandbox-"
_numbers = itertools.count()


class PidsCgroup:
    """Made for one sandbox. `close` it after its processes have ended."""

    def __init__(self, root: Path, max_processes: int) -> None:
        """Raise OSError where control groups cannot be made."""
        _sweep(root)
        self._folder = root / f"{_PREFIX}{os.getpid()}-{next(_numbers)}"
        self._folder.mkdir()
        try:
            (self._folder / "pids.max").write_text(str(max_processes))
        except OSError:
            self._folder.rmdir()
            raise

    def add_tree(self, pid: int) -> None:
        """Move a process and its descendants in; none of them may be starting another. Raises OSError."""
        (self._folder / "cgroup.procs").write_text(str(pid))
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            for child in children.read_text().split():
                self.add_tree(int(child))

    def close(self) -> None:
        """Remove the group; where its last process is still ending after CLOSE_S, a later worker does."""
        deadline = time.monotonic() + CLOSE_S
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                self._folder.rmdir()
                return
            time.sleep(0.005)


def find_root() -> Path | None:
    """Return the folder where this process may make control groups that limit processes, None where it may not."""
    for root in (Path("/sys/fs/cgroup/pids"), Path("/sys/fs/cgroup")):
        with contextlib.suppress(OSError):
            limits_processes = root.name == "pids" or "pids" in (root / "cgroup.subtree_control").read_text().split()
            if os.geteuid() == 0 and limits_processes and os.access(root, os.W_OK):
                return root
    return None


def _sweep(root: Path) -> None:
    """Remove the groups of workers that were killed."""
    for folder in root.glob(f"{_PREFIX}*"):
        owner = folder.name.removeprefix(_PREFIX).split("-")[0]
        if not os.path.exists(f"/proc/{owner}"):
            with contextlib.suppress(OSError):
                folder.rmdir()

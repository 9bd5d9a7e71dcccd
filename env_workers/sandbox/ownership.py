"""The labels that name the owner of a container, and whether that owner is still alive."""

import os
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path

LIFETIME_S = 12 * 3600.0
"""A worker replaces a container of this age."""
FOREIGN_AGE_S = 2 * LIFETIME_S
"""A container of this age whose owner cannot be looked up is an orphan: more than a lifetime and any execution."""
RUN, INCARNATION, WORKER, CREATED = "sdpo.run", "sdpo.incarnation", "sdpo.worker", "sdpo.created"
NAMESPACE, PROCESS = "sdpo.place", "sdpo.process"


def labels(owner: str, worker: str) -> dict[str, str]:
    """Return the labels of a container of this process. `owner` is "run-incarnation"."""
    run, _, incarnation = owner.rpartition("-")
    return {
        RUN: run,
        INCARNATION: incarnation,
        WORKER: worker,
        CREATED: str(int(time.time())),
        NAMESPACE: _namespace(),
        PROCESS: f"{os.getpid()}/{_started(os.getpid())}",
    }


def is_orphan(of: Mapping[str, str], now_s: float) -> bool:
    """Whether the owner of the container with these labels is gone. `now_s` is a time of time.time().

    The owner is looked up where its process number is valid here: same boot, same PID namespace. For any other owner
    only the age decides.
    """
    try:
        created_s = float(of[CREATED])
        namespace, (pid, started) = of[NAMESPACE], of[PROCESS].split("/")
        alive = _started(int(pid)) == started
    except (KeyError, ValueError):
        return False  # not labels of ours
    if namespace == _namespace():
        return not alive
    return now_s - created_s > FOREIGN_AGE_S


@cache
def _namespace() -> str:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot}/{os.stat('/proc/self/ns/pid').st_ino}"


def _started(pid: int) -> str | None:
    """Return when that process started, in clock ticks since the boot; None where it is not alive."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = state[state.rindex(")") + 2 :].split()
    return None if fields[0] in "ZX" else fields[19]

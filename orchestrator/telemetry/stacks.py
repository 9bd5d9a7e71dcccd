"""Writes the stacks of every thread of every actor on this machine, before an actor that hangs is killed."""

import faulthandler
import os
import time
from pathlib import Path

import psutil
import ray

from sdpo.stacks import REQUEST

ACTOR_TITLES = tuple(f"ray::{name}" for name in ("RolloutWorker", "EnvWorker", "TeacherWorker", "LearnerRank"))
WRITING_TAKES_S = 1.0


def dump_stacks(folder: Path) -> None:
    """Write `orchestrator.txt` and one file an actor, named by class and pid, into `folder`. Blocks for a second.

    Actors on other nodes are not reached.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "orchestrator.txt").open("w") as file:
        faulthandler.dump_traceback(file, all_threads=True)
    asked: list[tuple[str, int, Path, int]] = []
    for process in psutil.process_iter() if ray.is_initialized() else []:
        try:
            title = " ".join(process.cmdline())
            log = Path(os.readlink(f"/proc/{process.pid}/fd/2"))
            if title.startswith(ACTOR_TITLES) and _is_ours(log) and _answers(process.pid):
                asked.append((title.split()[0].removeprefix("ray::"), process.pid, log, log.stat().st_size))
                process.send_signal(REQUEST)
        except (psutil.Error, OSError):  # it ended meanwhile, or is another user's
            continue
    time.sleep(WRITING_TAKES_S)
    for name, pid, log, offset in asked:
        with log.open("rb") as written:
            written.seek(offset)
            (folder / f"{name}-{pid}.txt").write_bytes(written.read())


def _is_ours(log: Path) -> bool:
    """Ray names a worker's log worker-WORKER-JOB-PID.err; JOB is all f where the process is older than its job."""
    job = ray.get_runtime_context().get_job_id()
    return any(f"-{each}-" in log.name for each in (job, "f" * len(job)))


def _answers(pid: int) -> bool:
    """Return whether the process handles the signal, which would end one that does not."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    caught = next(int(line.split()[1], 16) for line in lines if line.startswith("SigCgt:"))
    return bool(caught >> (REQUEST - 1) & 1)

"""When something hangs: what every thread of every actor on this machine is doing, kept before anything is killed."""

import faulthandler
import os
import time
from pathlib import Path

import psutil

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
    for process in psutil.process_iter():
        try:
            title = " ".join(process.cmdline())
            if title.startswith(ACTOR_TITLES):
                log = Path(os.readlink(f"/proc/{process.pid}/fd/2"))
                asked.append((title.split()[0].removeprefix("ray::"), process.pid, log, log.stat().st_size))
                process.send_signal(REQUEST)
        except (psutil.Error, OSError):  # it ended meanwhile, or is another user's
            continue
    time.sleep(WRITING_TAKES_S)
    for name, pid, log, offset in asked:
        with log.open("rb") as written:
            written.seek(offset)
            (folder / f"{name}-{pid}.txt").write_bytes(written.read())

"""Inside the Slurm of slurm.sh: one job is submitted, sent SIGTERM in mid-run, put back and run to its end.

Prints one JSON object: what the job wrote, what Slurm says of it, and what was left between the two attempts.
"""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

STEP_S = 420.0


def call(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


def until(what: str, holds: Callable[[], bool]) -> float:
    """Seconds until it holds."""
    begin = time.monotonic()
    while not holds():
        if time.monotonic() - begin > STEP_S:
            logs = "\n".join(f"{path}:\n{path.read_text()[-1500:]}" for path in Path.cwd().glob("sdpo-*.log"))
            raise SystemExit(f"{what}: not within {STEP_S:g} s\n{logs}")
        time.sleep(0.5)
    return round(time.monotonic() - begin, 1)


def job(number: str) -> dict[str, str]:
    return dict(re.findall(r"(\w+)=(\S*)", call("scontrol", "show", "job", "--oneliner", number)))


def processes_of_ray() -> list[str]:
    commands = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                commands.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
            except OSError:
                continue
    return [command for command in commands if "raylet" in command or "gcs_server" in command]


def main(script: str, entrypoint: str) -> None:
    marks = Path("marks")
    number = call("sbatch", "--parsable", "--nodes=2", "--cpus-per-task=4", script, entrypoint).strip()
    seconds = {"until it runs": until("the command runs", lambda: marks.exists() and "working" in marks.read_text())}
    cluster = Path(".sdpo-slurm", number)
    token_mode = oct((cluster / "token").stat().st_mode & 0o777)
    call("scancel", "--batch", "--signal=TERM", number)
    seconds["until it is back in the queue"] = until("requeued", lambda: job(number).get("Restarts") == "1")
    until("the allocation is given back", lambda: job(number)["JobState"] in ("PENDING", "REQUEUED", "RUNNING"))
    between = {
        "ray": processes_of_ray(),
        "files": [str(p) for p in (cluster, Path(f"/tmp/ray-{number}")) if p.exists()],
    }
    call("scontrol", "update", f"jobid={number}", "StartTime=now")
    ended = ("COMPLETED", "FAILED", "TIMEOUT", "CANCELLED", "NODE_FAIL")
    seconds["until it ends"] = until("the second attempt ends", lambda: job(number)["JobState"] in ended)
    said = {
        "marks": marks.read_text().splitlines(),
        "token_mode": token_mode,
        "between": between,
        "state": job(number)["JobState"],
        "exit": job(number)["ExitCode"],
        "seconds": seconds,
        "log": Path(f"sdpo-{number}.log").read_text()[-4000:],
        "pid": os.getpid(),
    }
    print(json.dumps(said))


if __name__ == "__main__":
    main(*sys.argv[1:])

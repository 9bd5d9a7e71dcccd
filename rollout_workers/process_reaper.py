"""Cleans up after a process that was killed: the processes it started, their shared-memory segments and sockets.

A process that dies by SIGKILL cannot clean up: vLLM's engine process outlives its actor, and some of Ray's processes
outlive the driver. `ProcessReaper` starts this file as a small detached process, the reaper, which holds the read end
of a pipe. When the pipe closes, for any reason, the reaper kills every process that has its token in the environment,
and every process that it has seen to descend from one of those (a process that sets its title overwrites its
environment). It removes the files that they left behind. A process with a token may have a reaper of its own, whose
token its children have. The detached process uses the standard library only.
"""

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

TOKEN_VARIABLE = "SDPO_ROLLOUT_TOKEN"
SHM = Path("/dev/shm")
SWEEP_LIMIT_S = 8.0
LOOK_EVERY_S = 1.0


def marked_pids(token: str) -> list[int]:
    """Return the processes that were started with the token in their environment."""
    wanted = f"{TOKEN_VARIABLE}={token}".encode()
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        try:
            environ = Path("/proc", entry, "environ").read_bytes()
        except OSError:  # the process has ended, or it belongs to another user
            continue
        if wanted in environ.split(b"\0"):
            found.append(int(entry))
    return found


def descendants_of(pids: list[int]) -> dict[int, str]:
    """Return the descendants of `pids` and when each started (clock ticks after boot), which identifies a process."""
    children: dict[int, list[tuple[int, str]]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (known := _parent_and_start(int(entry))) is not None:
            children.setdefault(known[0], []).append((int(entry), known[1]))
    found, below = dict[int, str](), list(pids)
    while below:
        born = children.get(below.pop(), [])
        found.update(born)
        below += [child for child, _ in born]
    return found


def _parent_and_start(pid: int) -> tuple[int, str] | None:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:  # the process has ended
        return None
    return None if fields[0] == "Z" else (int(fields[1]), fields[19])


def segments_of(pids: list[int]) -> set[Path]:
    """Return the shared memory and semaphores in /dev/shm that the processes have mapped and that still have a name.

    They are found by inode, because glibc maps a semaphore under a temporary name, which it removes.
    """
    inodes: set[int] = set()
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
        except OSError:  # the process has ended
            continue
        inodes.update(int(line.split()[4]) for line in lines if "/dev/shm/" in line)
    segments: set[Path] = set()
    for path in (*SHM.glob("psm_*"), *SHM.glob("sem.mp-*")):
        with contextlib.suppress(FileNotFoundError):  # it was removed
            if path.stat().st_ino in inodes:
                segments.add(path)
    return segments


def _is_spared(pid: int) -> bool:
    """Return whether to let a process end by itself: resource trackers, which unlink semaphores, and other reapers."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:  # the process has ended
        return False
    return b"multiprocessing.resource_tracker" in command or os.fsencode(__file__) in command


def sweep(token: str, scratch: Path, segments: set[Path], seen: dict[int, str]) -> None:
    """Kill the processes that have the token or were seen to descend from one, and remove their files."""
    deadline_s = time.monotonic() + SWEEP_LIMIT_S
    segments |= segments_of(marked_pids(token))
    while time.monotonic() < deadline_s:
        alive = {pid for pid, start in seen.items() if (known := _parent_and_start(pid)) and known[1] == start}
        pids = [pid for pid in alive | set(marked_pids(token)) if not _is_spared(pid)]
        if not pids:
            break
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):  # the process has ended
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)
    for segment in segments:
        segment.unlink(missing_ok=True)
    shutil.rmtree(scratch, ignore_errors=True)


def _watch(token: str, scratch: Path) -> None:
    if os.fork():
        os._exit(0)
    segments: set[Path] = set()
    seen: dict[int, str] = {}
    while True:
        seen |= descendants_of(marked_pids(token))
        if not select.select([sys.stdin], [], [], LOOK_EVERY_S)[0]:
            continue
        lines = os.read(sys.stdin.fileno(), 65536).decode().splitlines()
        if not lines:
            break
        segments |= {Path(line) for line in lines} | segments_of(marked_pids(token))
    sweep(token, scratch, segments, seen)


class ProcessReaper:
    """Marks the processes that this process starts from now on, and has them killed when this process has ended.

    `scratch`: a folder for sockets, removed at the end. A process makes one reaper, before its engine starts.
    """

    def __init__(self, scratch: Path) -> None:
        self.token = uuid.uuid4().hex
        command = [sys.executable, "-S", "-E", __file__, self.token, str(scratch)]
        # env is empty: the reaper must not have the token that it looks for
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, env={}, start_new_session=True, text=True)
        self._process.wait(timeout=10)
        os.environ[TOKEN_VARIABLE] = self.token

    def pids(self) -> tuple[int, ...]:
        """Return the processes that are marked at the moment."""
        return tuple(marked_pids(self.token))

    def remember_segments(self) -> None:
        """Report the segments of this process and the marked ones, so that they are removed even if all die at once."""
        assert self._process.stdin is not None
        segments = segments_of([os.getpid(), *self.pids()])
        self._process.stdin.write("".join(f"{segment}\n" for segment in sorted(segments)))
        self._process.stdin.flush()

    def release(self) -> None:
        """Have the marked processes killed now, and mark no more. Returns before they have ended."""
        assert self._process.stdin is not None
        if os.environ.get(TOKEN_VARIABLE) == self.token:
            del os.environ[TOKEN_VARIABLE]
        self._process.stdin.close()


if __name__ == "__main__":
    _watch(sys.argv[1], Path(sys.argv[2]))

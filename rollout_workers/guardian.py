"""Cleans up after a process that was killed: the processes it started, their shared-memory segments and sockets.

Who dies by SIGKILL cannot clean up, and vLLM's engine process outlives its actor, some of Ray's processes the driver.
`Guardian` starts this file as a small detached process that holds the read end of a pipe. When the pipe closes, for
whatever reason, every process that carries the guardian's token in its environment is killed, and what it left behind
is removed. A guarded process may have a guardian of its own, whose token its children carry. The detached process uses
the standard library only.
"""

import contextlib
import os
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


def marked_pids(token: str) -> list[int]:
    """Processes that were started with the token in their environment."""
    wanted = f"{TOKEN_VARIABLE}={token}".encode()
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        try:
            environ = Path("/proc", entry, "environ").read_bytes()
        except OSError:  # it ended meanwhile, or it belongs to another user
            continue
        if wanted in environ.split(b"\0"):
            found.append(int(entry))
    return found


def segments_of(pids: list[int]) -> set[Path]:
    """Shared memory and semaphores in /dev/shm that the processes have mapped and that still have a name.

    Found by inode: glibc maps a semaphore under a temporary name, which is gone by then.
    """
    inodes: set[int] = set()
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
        except OSError:  # it ended meanwhile
            continue
        inodes.update(int(line.split()[4]) for line in lines if "/dev/shm/" in line)
    segments: set[Path] = set()
    for path in (*SHM.glob("psm_*"), *SHM.glob("sem.mp-*")):
        with contextlib.suppress(FileNotFoundError):  # it went meanwhile
            if path.stat().st_ino in inodes:
                segments.add(path)
    return segments


def _is_resource_tracker(pid: int) -> bool:
    try:
        return b"multiprocessing.resource_tracker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:  # it ended meanwhile
        return False


def sweep(token: str, scratch: Path, segments: set[Path]) -> None:
    """Kill the marked processes, except resource trackers: they unlink semaphores, and end with their last user."""
    deadline_s = time.monotonic() + SWEEP_LIMIT_S
    segments |= segments_of(marked_pids(token))
    while time.monotonic() < deadline_s:
        pids = [pid for pid in marked_pids(token) if not _is_resource_tracker(pid)]
        if not pids:
            break
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):  # it ended meanwhile
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)
    for segment in segments:
        segment.unlink(missing_ok=True)
    shutil.rmtree(scratch, ignore_errors=True)


def _watch(token: str, scratch: Path) -> None:
    if os.fork():
        os._exit(0)
    segments: set[Path] = set()
    for line in sys.stdin:
        segments |= {Path(line.strip())} | segments_of(marked_pids(token))
    sweep(token, scratch, segments)


class Guardian:
    """Marks the processes that this one starts from now on, and has them removed when this one is gone.

    `scratch` is a folder for sockets, removed at the end. One guardian a process, made before the engine starts.
    """

    def __init__(self, scratch: Path) -> None:
        self.token = uuid.uuid4().hex
        command = [sys.executable, "-S", "-E", __file__, self.token, str(scratch)]
        # env is empty: the guardian must not carry the token that it looks for
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, env={}, start_new_session=True, text=True)
        self._process.wait(timeout=10)
        os.environ[TOKEN_VARIABLE] = self.token

    def pids(self) -> tuple[int, ...]:
        """The processes that are guarded at the moment."""
        return tuple(marked_pids(self.token))

    def remember_segments(self) -> None:
        """Record the segments of this process and of the guarded ones, so that they go even if all die at once."""
        assert self._process.stdin is not None
        found = segments_of([os.getpid(), *self.pids()])
        self._process.stdin.write("".join(f"{segment}\n" for segment in sorted(found)))
        self._process.stdin.flush()

    def release(self) -> None:
        """End the guarded processes now. Returns before the sweep is over."""
        assert self._process.stdin is not None
        self._process.stdin.close()


if __name__ == "__main__":
    _watch(sys.argv[1], Path(sys.argv[2]))

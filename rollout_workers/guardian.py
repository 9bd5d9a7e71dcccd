"""Cleans up after a process that was killed: the processes it started, their shared-memory segments and sockets.

Who dies by SIGKILL cannot clean up, and vLLM's engine process outlives its actor, some of Ray's processes the driver.
`Guardian` starts this file as a small detached process that holds the read end of a pipe. When the pipe closes, for
whatever reason, every process that carries the guardian's token in its environment is killed, and so is every one that
was seen to descend from such a process: who gives itself a title writes it over its environment. What they left
behind is removed. A guarded process may have a guardian of its own, whose token its children carry. The detached
process uses the standard library only.
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


def descendants_of(pids: list[int]) -> dict[int, str]:
    """Processes below `pids`, and when each started (clock ticks after boot): together they name one process."""
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
    except OSError:  # it ended meanwhile
        return None
    return None if fields[0] == "Z" else (int(fields[1]), fields[19])


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


def _is_spared(pid: int) -> bool:
    """Resource trackers unlink semaphores and end with their last user; guardians have their own work to do."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:  # it ended meanwhile
        return False
    return b"multiprocessing.resource_tracker" in command or os.fsencode(__file__) in command


def sweep(token: str, scratch: Path, segments: set[Path], seen: dict[int, str]) -> None:
    """Kill the processes that are marked or were seen, and remove what they leave."""
    deadline_s = time.monotonic() + SWEEP_LIMIT_S
    segments |= segments_of(marked_pids(token))
    while time.monotonic() < deadline_s:
        alive = {pid for pid, start in seen.items() if (known := _parent_and_start(pid)) and known[1] == start}
        pids = [pid for pid in alive | set(marked_pids(token)) if not _is_spared(pid)]
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
        """End the guarded processes now, and mark no more. Returns before the sweep is over."""
        assert self._process.stdin is not None
        if os.environ.get(TOKEN_VARIABLE) == self.token:
            del os.environ[TOKEN_VARIABLE]
        self._process.stdin.close()


if __name__ == "__main__":
    _watch(sys.argv[1], Path(sys.argv[2]))

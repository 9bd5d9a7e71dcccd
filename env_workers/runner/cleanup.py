"""Cleans a sandbox between two executions, and checks that nothing of the first is left."""

import contextlib
import itertools
import os
import shutil
import signal

from env_workers.runner.limits import FOLDERS

_QUEUES = ("/dev/mqueue",)
_IPC_TABLES = ("/proc/sysvipc/shm", "/proc/sysvipc/sem", "/proc/sysvipc/msg")
_OWN_SETTINGS = tuple(f"/proc/self/{name}" for name in ("oom_score_adj", "autogroup", "timerslack_ns"))
"""Settings of PID 1 that a program may write where the worker is host root; PID 1 could not write all of them back."""
_OOM_COUNTERS = ("/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control")


def kill_all() -> None:
    """Kill and reap every process but PID 1; return when the kernel finds no process to signal."""
    while True:
        try:
            os.kill(-1, signal.SIGKILL)
        except ProcessLookupError:
            return
        with contextlib.suppress(ChildProcessError):
            while True:
                os.waitpid(-1, 0)


class Cleaner:
    """Restores the state at the time it is made: PID 1 makes it before the first execution."""

    def __init__(self) -> None:
        shared = [path for path in _QUEUES if os.path.isdir(path) and os.access(path, os.W_OK)]
        self._folders = [_Folder(path) for path in (*FOLDERS, *shared)]
        self._ipc_tables = [os.open(path, os.O_RDONLY) for path in _IPC_TABLES if os.access(path, os.R_OK)]
        self._oom_counters = [os.open(path, os.O_RDONLY) for path in _OOM_COUNTERS if os.access(path, os.R_OK)]
        self._num_oom_kills = self._count_oom_kills()
        self._own_settings = [os.open(path, os.O_RDONLY) for path in _OWN_SETTINGS if os.access(path, os.R_OK)]
        self._settings_at_start = self._read_own_settings()

    def out_of_memory(self) -> bool:
        """True when the kernel killed a process of the container for memory since the last call."""
        before, self._num_oom_kills = self._num_oom_kills, self._count_oom_kills()
        return self._num_oom_kills > before

    def clean_up(self) -> str | None:
        """Empty the folders; return what is left of the program, None when nothing is. No other process may live."""
        for folder in self._folders:
            if not folder.restore():
                return f"{folder.path} is not empty"
        if any(os.pread(table, 4096, 0).count(b"\n") > 1 for table in self._ipc_tables):
            return "System V objects are left"
        if self._read_own_settings() != self._settings_at_start:
            return "the settings of PID 1 are changed"
        return None

    def _read_own_settings(self) -> list[bytes]:
        return [os.pread(setting, 256, 0) for setting in self._own_settings]

    def _count_oom_kills(self) -> int:
        words = b" ".join(os.pread(counter, 4096, 0) for counter in self._oom_counters).split()
        return sum(int(count) for name, count in itertools.pairwise(words) if name == b"oom_kill")


class _Folder:
    """A folder that was empty at the start. No name in it is ever read by PID 1 (see `env_workers.runner.buffer`)."""

    def __init__(self, path: str) -> None:
        self.path = path
        state = os.stat(path)
        self._is_ours = state.st_uid == os.geteuid()
        self._mode = state.st_mode & 0o7777
        self._empty_size = state.st_size if self._size_tells_entries(state.st_size) else None

    def restore(self) -> bool:
        """Restore the folder; False when that fails."""
        if self._is_ours:
            os.chmod(self.path, self._mode)
        if not self._is_empty() and (not self._remove_all() or self._is_empty() is False):
            return False
        if os.listxattr(self.path):
            return False
        if self._is_ours:
            os.utime(self.path, (0, 0))
        return True

    def _size_tells_entries(self, empty_size: int) -> bool:
        """True on tmpfs, where a folder's size says how many entries it has."""
        probe = os.path.join(self.path, "probe")
        try:
            os.close(os.open(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        except OSError:
            return False
        larger = os.stat(self.path).st_size > empty_size
        os.unlink(probe)
        return larger and os.stat(self.path).st_size == empty_size

    def _is_empty(self) -> bool | None:
        """Whether the folder is empty; None where its size does not show that."""
        return None if self._empty_size is None else os.stat(self.path).st_size == self._empty_size

    def _remove_all(self) -> bool:
        """Remove every entry, from a process of its own; True when the folder is empty then."""
        child = os.fork()
        if child == 0:
            try:
                with os.scandir(self.path) as entries:
                    for entry in list(entries):
                        if entry.is_dir(follow_symlinks=False):
                            shutil.rmtree(entry.path)
                        else:
                            os.unlink(entry.path)
                os._exit(bool(os.listdir(self.path)))
            finally:
                os._exit(1)
        return os.waitpid(child, 0)[1] == 0

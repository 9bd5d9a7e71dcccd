"""Limits of one execution: those the kernel keeps, those that are watched, and the names of those that were passed."""

import contextlib
import ctypes
import errno
import os
import resource
import signal
from typing import Any

WORK_DIR = "/tmp"
FOLDERS = tuple(folder for folder in (WORK_DIR, "/dev/shm") if os.access(folder, os.W_OK))
"""What programs may write to. The second is for the semaphores of `multiprocessing`."""
STARTERS = 1
"""Processes of an execution that are not the program's: the one that starts scripts."""
Settings = dict[str, Any]

_PR_SET_DUMPABLE = 4
_prctl = ctypes.CDLL(None).prctl


def set_dumpable(dumpable: bool) -> None:
    """Set whether other processes of the same user may trace this one and read its memory and descriptors."""
    _prctl(_PR_SET_DUMPABLE, int(dumpable), 0, 0, 0)


def enter_limits_to_inherit(settings: Settings) -> None:
    """Set the limits that hold for PID 1, too, and that each of its children inherits."""
    limits = {
        resource.RLIMIT_FSIZE: settings["max_file_bytes"],
        resource.RLIMIT_NOFILE: settings["max_open_files"],
        resource.RLIMIT_CORE: 0,
    }
    if settings["own_uid"]:  # the kernel counts processes by user, PID 1 among them
        limits[resource.RLIMIT_NPROC] = settings["max_processes"] + 1 + STARTERS
    for which, value in limits.items():
        resource.setrlimit(which, (value, value))


def enter_limits(settings: Settings) -> None:
    """Set the other limits for this process and its children, which the kernel kills first when memory runs out.

    The soft limit of processor time has a signal of its own; the hard one's SIGKILL would look like the machine's.
    """
    try:
        file = os.open("/proc/self/oom_score_adj", os.O_WRONLY)
        os.write(file, b"1000")
        os.close(file)
    except OSError:
        pass  # a kernel without it
    cpu_s, mapped_bytes = settings["cpu_limit_s"], settings["memory_bytes"] + _mapped_bytes()
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s + 2))
    resource.setrlimit(resource.RLIMIT_AS, (mapped_bytes, mapped_bytes))


def _mapped_bytes() -> int:
    """Return the bytes that the interpreter itself has mapped: mostly untouched, and 100 MiB apart between images."""
    statm = os.open("/proc/self/statm", os.O_RDONLY)
    try:
        return int(os.read(statm, 64).split()[0]) * resource.getpagesize()
    finally:
        os.close(statm)


def limit_behind(error: BaseException) -> str | None:
    """Return the limit that made the kernel refuse what a program asked for, None when it was something else."""
    if isinstance(error, OSError):
        if error.errno == errno.EMFILE:
            return "file_limit"
        if error.errno == errno.EFBIG:
            return "file_size_limit"
        if error.errno == errno.ENOSPC:
            return "disk_limit" if all(os.statvfs(folder).f_favail for folder in FOLDERS) else "file_limit"
        # Half: the first that were refused may be gone when the count is taken.
        if error.errno == errno.EAGAIN and 0 < resource.getrlimit(resource.RLIMIT_NPROC)[0] // 2 < _num_tasks(_pids()):
            return "process_limit"
    if type(error) is RuntimeError and error.args == ("can't start new thread",):
        return "process_limit"
    return None


def limit_behind_signal(number: int) -> str | None:
    """Return the limit whose signal ended a process."""
    limits = {int(signal.SIGXCPU): "cpu_limit", int(signal.SIGXFSZ): "file_size_limit"}
    return limits.get(number)


def passed_limit(settings: Settings, num_files_before: int) -> str | None:
    """Return the limit that all processes of an execution together have passed. PID 1 calls it every few milliseconds.

    What the kernel limits by itself is not the whole: RLIMIT_NPROC does not bind host root, RLIMIT_AS counts one
    process, and not every work folder has a bound on its number of files.
    """
    pids, max_processes = _pids(), settings["max_processes"] + STARTERS
    if len(pids) > max_processes or _num_tasks(pids) > max_processes:
        return "process_limit"
    if num_files() - num_files_before > settings["max_files"]:
        return "file_limit"
    if sum(map(_touched_bytes, pids)) > settings["memory_bytes"]:
        return "memory_limit" if sum(map(_owned_bytes, pids)) > settings["memory_bytes"] else None
    return None


def num_files() -> int:
    """Count the files and folders in the folders of programs, including those without a name."""
    states = [os.statvfs(folder) for folder in FOLDERS]
    return sum(state.f_files - state.f_ffree for state in states)


def _pids() -> list[str]:
    return [name for name in os.listdir("/proc") if name.isdigit() and name != "1"]


def _num_tasks(pids: list[str]) -> int:
    count = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            count += len(os.listdir(f"/proc/{pid}/task"))
    return count


def _touched_bytes(pid: str) -> int:
    """Return the bytes of a process, shared memory counted in full. Cheap."""
    return _sum_kib(f"/proc/{pid}/status", (b"RssAnon:", b"RssShmem:"))


def _owned_bytes(pid: str) -> int:
    """Return the bytes of a process, shared memory in equal parts. Costs more, and a process may forbid it."""
    owned = _sum_kib(f"/proc/{pid}/smaps_rollup", (b"Pss_Anon:", b"Pss_Shmem:"))
    return owned or _touched_bytes(pid)


def _sum_kib(path: str, names: tuple[bytes, ...]) -> int:
    with contextlib.suppress(OSError), open(path, "rb") as file:
        return sum(1024 * int(line.split()[1]) for line in file.read().splitlines() if line.startswith(names))
    return 0

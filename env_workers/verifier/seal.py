"""What the helper process gives up once it has imported what it needs. Linux on x86_64 and aarch64.

After `seal`: it can read and write the descriptors that it has, open files for reading, manage its memory, and end. No
socket, no process, no signal, no file to write; text is not compiled (`Evaluated`). Address space is bounded here, the
processor time of one request by `processor_time`.
"""

import contextlib
import ctypes
import os
import platform
import resource
import signal
import struct
import sys
from collections.abc import Iterator
from typing import Any

_MACHINES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
_ALLOWED = {  # name: number on x86_64, on aarch64 (-1: does not exist there)
    "read": (0, 63),
    "write": (1, 64),
    "close": (3, 57),
    "stat": (4, -1),
    "fstat": (5, 80),
    "lstat": (6, -1),
    "newfstatat": (262, 79),
    "statx": (332, 291),
    "lseek": (8, 62),
    "pread64": (17, 67),
    "access": (21, -1),
    "faccessat": (269, 48),
    "faccessat2": (439, 439),
    "readlink": (89, -1),
    "readlinkat": (267, 78),
    "getdents64": (217, 61),
    "getcwd": (79, 17),
    "mmap": (9, 222),
    "mprotect": (10, 226),
    "munmap": (11, 215),
    "mremap": (25, 216),
    "madvise": (28, 233),
    "brk": (12, 214),
    "futex": (202, 98),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "sigaltstack": (131, 132),
    "setitimer": (38, 103),
    "clock_gettime": (228, 113),
    "gettimeofday": (96, 169),
    "time": (201, -1),
    "getrandom": (318, 278),
    "getpid": (39, 172),
    "gettid": (186, 178),
    "getrusage": (98, 165),
    "sched_yield": (24, 124),
    "restart_syscall": (219, 128),
    "exit": (60, 93),
    "exit_group": (231, 94),
}
_OPENAT, _SECCOMP = (257, 56), (317, 277)
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_GENERATORS = ("/sympy/polys/monomials.py",)  # compiles what it generates of exponents alone
_LOAD, _EQUAL, _ANY_BIT, _RETURN = 0x20, 0x15, 0x45, 0x06
_ALLOW, _EPERM = 0x7FFF0000, 0x00050000 | 1
_FILTER_MODE, _ALL_THREADS, _PR_SET_NO_NEW_PRIVS = 1, 1, 38


class Evaluated(BaseException):
    """A library was about to compile text as a program. No `except Exception` of that library can swallow it."""


class Guard:
    """Whether text may be compiled, and whether that was tried since `begin`. Imports may."""

    def __init__(self) -> None:
        self.closed = self.tripped = False

    def begin(self) -> None:
        self.closed, self.tripped = True, False

    @contextlib.contextmanager
    def opened(self) -> Iterator[None]:
        """For code that compiles text of its own, never a model's."""
        self.closed = False
        try:
            yield
        finally:
            self.closed = True

    def hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        """An audit hook."""
        if not self.closed or event not in ("compile", "exec"):
            return
        name = arguments[1] if event == "compile" else getattr(arguments[0], "co_filename", "")
        if str(name).endswith(".py") or str(name).startswith("<frozen") or importing():
            return
        if sys._getframe(1).f_code.co_filename.endswith(_GENERATORS):
            return
        self.tripped = True
        raise Evaluated


GUARD = Guard()


def seal(memory_bytes: int) -> None:
    """For the rest of the process's life. `memory_bytes` may be allocated on top of what is. Raises OSError."""
    with open("/proc/self/statm") as statm:
        taken = int(statm.read().split()[0]) * resource.getpagesize()
    for limit, value in (
        (resource.RLIMIT_AS, taken + memory_bytes),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, 64),
    ):
        resource.setrlimit(limit, (value, value))
    sys.addaudithook(GUARD.hook)
    _install_filter()
    GUARD.begin()


@contextlib.contextmanager
def processor_time(seconds: float) -> Iterator[None]:
    """The kernel ends the process (SIGPROF) when what is inside takes more processor time than this."""
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def importing() -> bool:
    """Whether the caller runs because a module is being imported."""
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back  # type: ignore[assignment]
    return False


def _install_filter() -> None:
    machine = platform.machine()
    if machine not in _MACHINES:
        raise OSError(f"the helper process is sealed on {' and '.join(_MACHINES)} only; this machine is {machine}")
    code = _filter(*_MACHINES[machine])
    buffer = ctypes.create_string_buffer(code)
    program = ctypes.create_string_buffer(struct.pack("@HP", len(code) // 8, ctypes.addressof(buffer)))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")
    if libc.syscall(_SECCOMP[_MACHINES[machine][1]], _FILTER_MODE, _ALL_THREADS, program):
        raise OSError(ctypes.get_errno(), "the kernel refuses the seccomp filter")


def _filter(architecture: int, column: int) -> bytes:
    """A list of what is allowed, as classic BPF; a jump counts the instructions that it skips."""
    numbers = [row[column] for row in _ALLOWED.values() if row[column] >= 0]
    tail = [
        _instruction(_EQUAL, _OPENAT[column], if_false=2),
        _instruction(_LOAD, 32),  # the third argument: openat's flags
        _instruction(_ANY_BIT, _WRITING, if_false=1),
        _instruction(_RETURN, _EPERM),
        _instruction(_RETURN, _ALLOW),
    ]
    to_end = len(numbers) + len(tail) - 1
    return b"".join(
        [
            _instruction(_LOAD, 4),
            _instruction(_EQUAL, architecture, if_false=to_end),
            _instruction(_LOAD, 0),
            *(_instruction(_EQUAL, number, if_true=to_end - 1 - i) for i, number in enumerate(numbers)),
            *tail,
        ]
    )


def _instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)

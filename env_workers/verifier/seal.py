"""Restricts the helper process once it has imported what it needs. Linux on x86_64 and aarch64.

After `seal`: it can read and write the descriptors that it has, open files for reading, manage its memory, and end. No
socket, no process, no signal, no file to write; text is not compiled (`Evaluated`). Address space is bounded here, the
processor time of one request by `processor_time`.
"""

import contextlib
import errno
import os
import resource
import signal
import sys
from collections.abc import Iterator
from typing import Any

from env_workers.runner.system_calls import enter_filter
from env_workers.sandbox.seccomp import Condition, Numbers, compile_filter

_ALLOWED: dict[str, Numbers] = {
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
_OPENAT = (257, 56)
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_GENERATORS = ("/sympy/polys/monomials.py",)  # compiles what it generates of exponents alone


class Evaluated(BaseException):
    """A library was about to compile text as a program. No `except Exception` of that library can swallow it."""


class Guard:
    """Records whether compiling text was tried since `begin`, and forbids it. Imports may compile."""

    def __init__(self) -> None:
        self.closed = self.tripped = False

    def begin(self) -> None:
        self.closed, self.tripped = True, False

    @contextlib.contextmanager
    def opened(self) -> Iterator[None]:
        """Allow compiling, for code that compiles its own text, never a model's."""
        self.closed = False
        try:
            yield
        finally:
            self.closed = True

    def hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Refuse to compile text; an audit hook of `sys.addaudithook`."""
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
    """Restrict this process for good. It may allocate `memory_bytes` more than it has. Raises OSError."""
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
    read_only = Condition(numbers=_OPENAT, argument=2, forbidden_bits=_WRITING)
    enter_filter(compile_filter(_ALLOWED.values(), [read_only], error_number=errno.EPERM, allow_listed=True))
    GUARD.begin()


@contextlib.contextmanager
def processor_time(seconds: float) -> Iterator[None]:
    """End the process (SIGPROF, by the kernel) when the body takes more processor time than this."""
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

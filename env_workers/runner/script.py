"""Runs a program as `python3 Solution.py` does, from its first line to the end of a process of its own.

The process is forked from a warm interpreter and ended by the interpreter itself: it waits for threads, runs what was
registered with `atexit`, flushes the streams and finalizes its objects, all within the limits of the execution.
"""

import builtins
import contextlib
import ctypes
import os
import random
import select
import signal
import sys
import types
from typing import Any, NoReturn

from env_workers.runner.framing import decode_json, encode_json
from env_workers.runner.limits import WORK_DIR, limit_behind_signal
from env_workers.runner.program import PROGRAM_FILE, Outcome, raised
from env_workers.runner.stdio import FdStdio, open_standard_streams

MAX_REPORT_BYTES = 2**16
"""What a pipe holds: a report is written before anybody reads it."""
_CHUNK_BYTES = 2**16
_CLOSED_STREAM_TICK_MS = 5
_REPORTED = ("raised", "memory_limit", "process_limit", "file_limit", "disk_limit", "file_size_limit")


def run_script(code: types.CodeType, text: str, stdio: FdStdio) -> Outcome:
    """Return the outcome of `python3 Solution.py` with `text` on stdin.

    The program has ended when its process has, and when no process that it left behind can write to its stdout. An
    exit code of 0 makes its outcome `printed`, whatever happened before.
    """
    reads, writes = zip(*(os.pipe() for _ in range(3)), strict=True)
    try:
        stdin = stdio.input_file(text)
        try:
            pid = os.fork()
            if pid == 0:
                _become_script(code, (stdin, *writes))
        finally:
            os.close(stdin)
            for fd in writes:
                os.close(fd)
        return _outcome(pid, reads, stdio.max_output_bytes)
    finally:
        for fd in reads:
            os.close(fd)


def _outcome(pid: int, reads: tuple[int, ...], max_output_bytes: int) -> Outcome:
    out, err, report = reads
    written, status = _collect(pid, out, err, max_output_bytes)
    if status is None:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        return {"status": "output_limit"}
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        if number == signal.SIGKILL:  # PID 1 knows whether the kernel did that for want of memory
            os.kill(os.getpid(), signal.SIGKILL)
        limit = limit_behind_signal(number)
        return {"status": limit} if limit else {"status": "killed", "code": number}
    code = os.waitstatus_to_exitcode(status)
    if code == 0:
        return {"status": "printed", "text": written.decode("utf-8", "replace")}
    return _reported(report) or {"status": "exited", "code": code}


def _collect(pid: int, out: int, err: int, max_bytes: int) -> tuple[bytearray, int | None]:
    """Read stdout and stderr to the end; return stdout and the wait status, None when either passed `max_bytes`."""
    written = {out: bytearray(), err: bytearray()}
    poller = select.poll()
    left = {out, err}
    for fd in left:
        poller.register(fd, select.POLLIN)
    while left:
        for fd, _ in poller.poll(None if out in left else _CLOSED_STREAM_TICK_MS):
            chunk = os.read(fd, _CHUNK_BYTES)
            written[fd] += chunk
            if len(written[fd]) > max_bytes:
                return written[out], None
            if not chunk:
                left.discard(fd)
                poller.unregister(fd)
        if left and out not in left:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                return written[out], status
    return written[out], os.waitpid(pid, 0)[1]


def _reported(report: int) -> Outcome | None:
    """Return what the program's process reported of its exception; None where it did not, or reported anything else."""
    os.set_blocking(report, False)
    try:
        record = decode_json(os.read(report, MAX_REPORT_BYTES))
    except (OSError, ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) and record.get("status") in _REPORTED else None


def _become_script(code: types.CodeType, files: tuple[int, ...]) -> NoReturn:
    """Run the program with stdin, stdout and stderr as `files`, the last for its report, and end this process."""
    try:
        report = _take_files(files)
        random.seed(0)  # a fork seeds it anew; verdicts are to be the same every time
        sys.argv[:] = [PROGRAM_FILE]
        sys.path.insert(0, WORK_DIR)
        sys.setrecursionlimit(sys.getrecursionlimit() + _depth())
        pid = os.getpid()
        error = _execute(code)
        status = 0 if error is None else _exit_status(error, report, pid)
        ctypes.pythonapi.Py_Exit(ctypes.c_int(status))
    finally:
        os._exit(1)  # never reached by a program: the interpreter could not be prepared


def _take_files(files: tuple[int, ...]) -> int:
    """Make `files` the only descriptors of this process and the standard streams; return that of the report.

    It has the highest number, so that the program's own descriptors have those of a process of its own.
    """
    stdin, stdout, stderr, report = files
    number = os.sysconf("SC_OPEN_MAX") - 1
    os.dup2(report, number, inheritable=False)
    for fd, stream in ((stdin, 0), (stdout, 1), (stderr, 2)):
        os.dup2(fd, stream)
    os.closerange(3, number)
    open_standard_streams()
    return number


def _depth() -> int:
    """Return the number of frames beneath the program's."""
    frame: types.FrameType | None = sys._getframe()
    depth = 0
    while frame is not None:
        depth, frame = depth + 1, frame.f_back
    return depth


def _execute(code: types.CodeType) -> BaseException | None:
    """Run the program as the module `__main__`; return what it raised. Nothing here refers to the module afterwards."""
    module = types.ModuleType("__main__")
    module.__dict__.update(__builtins__=builtins, __file__=PROGRAM_FILE)
    sys.modules["__main__"] = module
    try:
        exec(code, module.__dict__)
    except BaseException as error:  # a program may raise anything
        here = error.__traceback__
        return error.with_traceback(here.tb_next if here else None)
    return None


def _exit_status(error: BaseException, report: int, pid: int) -> int:
    """Do with an uncaught exception what the interpreter does; return the exit code of the process."""
    if isinstance(error, SystemExit):
        status = _status_of(error)
        if status & 0xFF:
            _report(error, report, pid)
        return status
    _report(error, report, pid)
    sys.last_type, sys.last_value, sys.last_traceback = type(error), error, error.__traceback__
    if sys.version_info >= (3, 12):
        sys.last_exc = error
    try:
        getattr(sys, "excepthook", sys.__excepthook__)(type(error), error, error.__traceback__)
    except SystemExit as stop:
        return _status_of(stop)
    except BaseException as broken:  # the hook is the program's own
        for shown in (broken, error):
            with contextlib.suppress(BaseException):
                sys.__excepthook__(type(shown), shown, shown.__traceback__)
    return 1


def _status_of(stop: SystemExit) -> int:
    code: Any = stop.code
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 0xFF if -(2**63) <= code < 2**63 else 0xFF
    with contextlib.suppress(BaseException):
        print(code, file=sys.stderr)
    return 1


def _report(error: BaseException, report: int, pid: int) -> None:
    """Report how the program failed. A process that the program forked reports nothing: it has no outcome."""
    if os.getpid() != pid:
        return
    record = {"status": "memory_limit"} if isinstance(error, MemoryError) else raised(error)
    with contextlib.suppress(OSError):  # the program may have closed the descriptor
        os.write(report, encode_json(record)[:MAX_REPORT_BYTES])

"""PID 1 of a sandbox: serves executions, each in a fresh forked process. Standard library only.

Request: {"source", "calls", "limits": {time_limit_s, wall_time_s, memory_bytes, max_processes, max_output_bytes}}.
Answer: {"outcomes": one for each call, "dirty": what could not be cleaned afterwards or None}.
The forked process does not have the protocol's descriptors and cannot signal or trace PID 1. After every execution
everything but PID 1 is killed and reaped and the work folder is emptied.
"""

import contextlib
import ctypes
import gc
import importlib
import json
import os
import random
import resource
import select
import shutil
import signal
import sys
import time
from typing import Any, NoReturn

from env_workers.runner import FdStdio, Outcome, run_program
from env_workers.sandbox.framing import FrameError, read_frame, write_frame

WORK_DIR = "/tmp"
TICK_S = 0.01
EXIT_GRACE_S = 0.2
MAX_OPEN_FILES = 64
MAX_FILE_BYTES = 32 * 2**20
MAX_ANSWER_BYTES = 8 * 2**20
PR_SET_DUMPABLE = 4
PRELOADED = (
    "array",
    "bisect",
    "collections",
    "copy",
    "dataclasses",
    "datetime",
    "decimal",
    "enum",
    "fractions",
    "functools",
    "hashlib",
    "heapq",
    "itertools",
    "math",
    "operator",
    "re",
    "statistics",
    "string",
    "textwrap",
    "traceback",
    "typing",
)

_prctl = ctypes.CDLL(None).prctl
_page_bytes = os.sysconf("SC_PAGE_SIZE")


def serve() -> None:
    """Answers requests on descriptors 0 and 1 until the other side closes. Refuses to run outside a PID namespace."""
    if os.getpid() != 1:
        raise SystemExit("this process kills every other process that it can see: it only runs as PID 1 of a sandbox")
    _prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for name in PRELOADED:
        importlib.import_module(name)
    gc.freeze()
    os.set_blocking(1, False)
    with contextlib.suppress(FrameError):  # the other side is gone: so are we
        write_frame(1, {"ready": True, "python": sys.version.split()[0], "uid": os.getuid()}, timeout_s=5)
        while True:
            request = read_frame(0, timeout_s=None)
            outcomes = execute(request["source"], request["calls"], request["limits"])
            write_frame(1, {"outcomes": outcomes, "dirty": _clean_up()}, timeout_s=5)


def execute(source: str, calls: list[dict[str, Any]], limits: dict[str, Any]) -> list[Outcome]:
    """One outcome for each call, from a fresh process. Afterwards no other process is left in the sandbox."""
    results, results_child = os.pipe()
    child = os.fork()
    if child == 0:
        _child(source, calls, limits, results_child)
    os.close(results_child)
    outcomes = _Collector(child, results, len(calls), limits).collect()
    os.close(results)
    _kill_all()
    return outcomes + [{"status": "not_run"}] * (len(calls) - len(outcomes))


class _Collector:
    """Reads the child's outcomes, one JSON line each, and watches its limits."""

    def __init__(self, child: int, results: int, num_calls: int, limits: dict[str, Any]) -> None:
        self.child, self.results, self.num_calls, self.limits = child, results, num_calls, limits
        self.outcomes: list[Outcome] = []
        self.buffer = bytearray()
        # A line holds a message or an output, and JSON escapes a byte in at most six.
        self.max_line_bytes = 8 * limits["max_output_bytes"] + 2**16
        self.left_bytes = MAX_ANSWER_BYTES
        self.poller = select.poll()
        self.poller.register(results, select.POLLIN)
        self.poller.register(0, 0)

    def collect(self) -> list[Outcome]:
        """The outcomes so far when all are in or the child ended; the last one then says how it ended."""
        end = time.monotonic() + self.limits["wall_time_s"]
        test_end = time.monotonic() + self.limits["time_limit_s"]
        status = None
        while len(self.outcomes) < self.num_calls:
            left_s = min(end, test_end) - time.monotonic()
            if left_s <= 0:
                return self._ended({"status": "timeout"})
            events = dict(self.poller.poll(1000 * min(TICK_S, left_s)))
            if 0 in events:
                os._exit(0)  # the env worker is gone
            if self.results in events:
                self.buffer += (chunk := os.read(self.results, 2**16))
                if not chunk:
                    return self._ended(_death(_wait_briefly(self.child) if status is None else status))
                num_before = len(self.outcomes)
                if fault := self._parse():
                    return self._ended({"status": fault})
                if len(self.outcomes) > num_before:
                    test_end = time.monotonic() + self.limits["time_limit_s"]
            elif status is not None:
                return self._ended(_death(status))  # it died, and a process of its own still holds the pipe
            elif limit := _passed_limit(self.limits):
                return self._ended({"status": limit})
            else:
                status = _wait_status(self.child)  # what it sent before it died is read first, in the next round
        return self.outcomes

    def _ended(self, outcome: Outcome) -> list[Outcome]:
        return [*self.outcomes, outcome]

    def _parse(self) -> str | None:
        """Moves whole lines to `outcomes`; the name of what is wrong with them."""
        *lines, rest = self.buffer.split(b"\n")
        self.buffer = bytearray(rest)
        self.left_bytes -= sum(map(len, lines))
        if self.left_bytes < len(rest):
            return "output_limit"
        if len(rest) > self.max_line_bytes:
            return "garbled"
        for line in lines[: self.num_calls - len(self.outcomes)]:
            try:
                outcome = json.loads(line)
            except (ValueError, RecursionError):
                return "garbled"
            if not isinstance(outcome, dict) or not isinstance(outcome.get("status"), str):
                return "garbled"
            self.outcomes.append(outcome)
        return None


def _child(source: str, calls: list[dict[str, Any]], limits: dict[str, Any], results: int) -> NoReturn:
    try:
        _enter_child(limits, results)
        stdio = FdStdio(limits["max_output_bytes"], WORK_DIR)
        for outcome in run_program(source, calls, stdio=stdio):
            _send(results, outcome)
    except MemoryError:
        _send(results, {"status": "memory_limit"})
    except Exception as error:  # for example no descriptor left for the next test's streams: the program's own doing
        _send(results, {"status": "raised", "type": type(error).__name__, "message": str(error), "frames": []})
    finally:
        os._exit(0)


def _enter_child(limits: dict[str, Any], results: int) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.closerange(3, results)
    os.closerange(results + 1, 1024)
    _prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    random.seed(0)
    os.chdir(WORK_DIR)
    _set_limits(limits)


def _send(results: int, outcome: Outcome) -> None:
    line = memoryview(json.dumps(outcome).encode() + b"\n")
    while line:
        line = line[os.write(results, line) :]


def _set_limits(limits: dict[str, Any]) -> None:
    # The soft limit's SIGXCPU says what ended the program; SIGKILL would look like the machine's doing.
    cpu_s = int(limits["wall_time_s"]) + 2
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s + 2))
    for which, value in (
        (resource.RLIMIT_AS, limits["memory_bytes"]),
        (resource.RLIMIT_NPROC, limits["max_processes"]),
        (resource.RLIMIT_FSIZE, MAX_FILE_BYTES),
        (resource.RLIMIT_NOFILE, MAX_OPEN_FILES),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(which, (value, value))


def _passed_limit(limits: dict[str, Any]) -> str | None:
    """RLIMIT_NPROC does not bind host root and RLIMIT_AS counts one process: both are watched here for all of them."""
    pids = [name for name in os.listdir("/proc") if name.isdigit() and name != "1"]
    if len(pids) > limits["max_processes"]:
        return "process_limit"
    memory_bytes = 0
    for pid in pids:
        with contextlib.suppress(OSError), open(f"/proc/{pid}/statm", "rb") as file:
            _, resident, shared, *_ = file.read().split()
            memory_bytes += (int(resident) - int(shared)) * _page_bytes
    return "memory_limit" if memory_bytes > limits["memory_bytes"] else None


def _wait_status(child: int) -> int | None:
    pid, status = os.waitpid(child, os.WNOHANG)
    return status if pid else None


def _wait_briefly(child: int) -> int | None:
    """The child closed its pipe: it is ending, or it goes on without a way to answer (None)."""
    deadline = time.monotonic() + EXIT_GRACE_S
    while (status := _wait_status(child)) is None and time.monotonic() < deadline:
        time.sleep(0.001)
    return status


def _death(status: int | None) -> Outcome:
    if status is None:
        return {"status": "garbled"}
    if not os.WIFSIGNALED(status):
        return {"status": "exited", "code": os.waitstatus_to_exitcode(status)}
    number = os.WTERMSIG(status)
    return {"status": "timeout"} if number == signal.SIGXCPU else {"status": "killed", "code": number}


def _kill_all() -> None:
    """Kills and reaps everything but PID 1; no process can slip through a fork."""
    while True:
        try:
            os.kill(-1, signal.SIGKILL)
        except ProcessLookupError:
            return
        with contextlib.suppress(ChildProcessError):
            while True:
                os.waitpid(-1, 0)


def _clean_up() -> str | None:
    """Empties the work folder; what else of the program is still there, None when nothing is."""
    try:
        os.chmod(WORK_DIR, 0o700)
        with os.scandir(WORK_DIR) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path)
                else:
                    os.unlink(entry.path)
    except (OSError, RecursionError) as error:
        return f"work folder: {error}"
    return None

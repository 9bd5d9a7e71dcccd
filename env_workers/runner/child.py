"""The process of one execution. It is forked ahead of its request and waits; it never serves a second one.

To it: a size (big-endian uint32) and that many bytes of JSON, first the request (its `max_output_bytes` bounds one
output), then messages. From it: lines, each of them `!` (it goes on) or `?` (it waits for a message), and JSON.
"""

import _signal  # type: ignore[import-not-found]  # `signal` wraps it in enums, which costs
import os
import random
import sys
from collections.abc import Iterator
from functools import partial
from typing import Any, NoReturn

from env_workers.runner.answers import plain_answer
from env_workers.runner.asserts import run_asserts
from env_workers.runner.framing import decode_json, encode_json
from env_workers.runner.limits import WORK_DIR, Settings, enter_limits, set_dumpable
from env_workers.runner.program import raised, run_program, serve_calls
from env_workers.runner.script import run_script
from env_workers.runner.stdio import FdStdio

GOES_ON, WAITS = b"!", b"?"


def run_child(settings: Settings, fd: int) -> NoReturn:
    """Run this process from start to end. `fd` is its end of a stream socket to PID 1; it keeps no other descriptor."""
    try:
        link = _Link(fd)
        _enter(settings, fd)
        stdio = FdStdio(settings["max_output_bytes"], WORK_DIR)
        request = link.read()
        if request is not None:
            stdio.max_output_bytes = request["max_output_bytes"]
            if request["mode"] in _OF_PROGRAMS:
                sys.path += settings["import_folders"]
            _MODES[request["mode"]](request, link, stdio)
    except MemoryError:
        link.send(GOES_ON, {"status": "memory_limit"})
    except Exception as error:  # for example no descriptor left for the next test's streams: the program's own doing
        link.send(GOES_ON, raised(error))
    finally:
        os._exit(0)


def _enter(settings: Settings, fd: int) -> None:
    null = settings["null"]
    os.dup2(null, 0)
    os.dup2(null, 1)
    os.dup2(null, 2)
    os.closerange(3, fd)
    os.closerange(fd + 1, 2**16)
    set_dumpable(True)
    os.setsid()  # the priority of a session is shared by all of its processes: PID 1 keeps its own
    _signal.signal(_signal.SIGINT, _signal.default_int_handler)
    _signal.signal(_signal.SIGHUP, _signal.SIG_DFL)  # the run's processes ignore it
    random.seed(0)
    enter_limits(settings)


class _Link:
    def __init__(self, fd: int) -> None:
        self.fd = fd

    def read(self) -> Any:
        """Return the next message, None when there will be none."""
        size = self._read_exactly(4)
        data = self._read_exactly(int.from_bytes(size, "big")) if size else None
        return None if data is None else decode_json(data)

    def send(self, mark: bytes, message: Any) -> None:
        line = memoryview(mark + encode_json(message) + b"\n")
        while line:
            line = line[os.write(self.fd, line) :]

    def ask(self, message: Any) -> Any:
        self.send(WAITS, message)
        answer = self.read()
        if answer is None:
            os._exit(0)
        return answer

    def _read_exactly(self, size: int) -> bytes | None:
        data = bytearray()
        while len(data) < size:
            chunk = os.read(self.fd, size - len(data))
            if not chunk:
                return None
            data += chunk
        return bytes(data)


def _run_calls(request: dict[str, Any], link: _Link, stdio: FdStdio) -> None:
    script = partial(run_script, stdio=stdio)
    for outcome in run_program(
        request["source"], request["calls"], stdio=stdio, shared=request["shared"], script=script
    ):
        link.send(GOES_ON, outcome)


def _run_candidate(request: dict[str, Any], link: _Link, stdio: FdStdio) -> None:
    def calls() -> Iterator[dict[str, Any]]:
        link.send(WAITS, {"status": "ready"})  # the program is loaded, or failed to
        while (message := link.read()) is not None:
            yield {"function": message["function"], "inputs": message["args"], "kwargs": message["kwargs"]}

    for outcome in serve_calls(request["source"], calls(), stdio, plain_answer):
        link.send(WAITS, outcome)


def _run_asserts(request: dict[str, Any], link: _Link, stdio: FdStdio) -> None:
    outcomes = run_asserts(
        request["source"], request["groups"], request["functions"], lambda message: link.ask({"ask": message})
    )
    for outcome in outcomes:
        link.send(GOES_ON, {"outcome": outcome})
    link.send(GOES_ON, {"finished": True})


_MODES = {"calls": _run_calls, "candidate": _run_candidate, "asserts": _run_asserts}
_OF_PROGRAMS = ("calls", "candidate")
"""Modes of processes that run the model's program; asserts are the judge's, and import no package."""

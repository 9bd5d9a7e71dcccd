"""PID 1's view of one execution: what the process sends, whether it keeps its limits, how it ends."""

import contextlib
import math
import os
import select
import time
from typing import Any

from env_workers.runner.buffer import Buffer
from env_workers.runner.limits import Settings, limit_behind_signal, num_files, passed_limit

Outcome = dict[str, Any]
TICK_S = 0.01
EXIT_GRACE_S = 0.2
MAX_ANSWER_BYTES = 8 * 2**20
HOST = 0


class Watch:
    """Watches process `pid`, which sends over `fd` (see `env_workers.runner.child`).

    `listening`: the host may send messages meanwhile.
    """

    def __init__(self, pid: int, fd: int, settings: Settings, head: dict[str, Any], listening: bool) -> None:
        self._pid, self._fd, self._settings = pid, fd, settings
        now = time.monotonic()
        self._turn_s, self._listening = head["time_limit_s"], listening
        self._end, self._turn_end, self._next_tick = now + head["wall_time_s"], now + self._turn_s, now + TICK_S
        self._num_files_before = num_files()
        self._max_line_bytes = head["max_line_bytes"]
        self._status: int | None = None
        self._outbox: list[Buffer] = []
        self._poller = select.poll()
        self._poller.register(HOST, select.POLLIN if listening else 0)
        self._poller.register(fd, select.POLLIN)
        self.output = Buffer(MAX_ANSWER_BYTES)
        self.lines: list[int] = []
        """Lengths of the whole lines at the front of `output`, newlines included."""
        self.host_sends = False

    @property
    def in_turn(self) -> bool:
        """False while the process is to wait for the host."""
        return bool(self._turn_end < math.inf)

    def send(self, message: Buffer) -> None:
        """Send the process a message (size and JSON); its turn begins."""
        self._turn_end = time.monotonic() + self._turn_s
        self._outbox.append(message)
        self._write()
        self._register()

    def hold(self) -> None:
        """End the turn of the process, which waits for the host now: nothing is read from it."""
        self._turn_end = math.inf
        self._register()

    def step(self) -> Outcome | None:
        """Wait until something happens, at most TICK_S; return how the execution ended, None while it goes on."""
        left_s = min(self._end, self._turn_end) - time.monotonic()
        if left_s <= 0:
            return {"status": "timeout"}
        events = dict(self._poller.poll(math.ceil(1000 * min(TICK_S, left_s))))
        host = events.get(HOST, 0)
        if host & ~select.POLLIN:
            os._exit(0)  # the env worker is gone
        self.host_sends = bool(host)
        event = events.get(self._fd, 0)
        if event & select.POLLOUT:
            self._write()
        if event & ~select.POLLOUT and (ended := self._read()):
            return ended
        return self._tick(bool(event & ~select.POLLOUT)) if time.monotonic() >= self._next_tick else None

    def close(self) -> None:
        """Release the buffers and the socket."""
        self.output.close()
        for message in self._outbox:
            message.close()
        os.close(self._fd)

    def _tick(self, busy: bool) -> Outcome | None:
        self._next_tick = time.monotonic() + TICK_S
        if limit := passed_limit(self._settings, self._num_files_before):
            return {"status": limit}
        if self._status is None:
            self._status = _wait_status(self._pid)  # what it sent before it died is read first, in the next round
        elif not busy:
            return _death(self._status)  # it died, and a process of its own still holds the socket
        return None

    def _register(self) -> None:
        reading = select.POLLIN if self.in_turn else 0
        self._poller.modify(self._fd, reading | (select.POLLOUT if self._outbox else 0))

    def _write(self) -> None:
        while self._outbox:
            try:
                self._outbox[0].drain(self._fd)
            except BlockingIOError:
                return
            except OSError:
                self._outbox[0].skip(len(self._outbox[0]))  # it does not read; reading from it shows how it ended
            if not len(self._outbox[0]):
                self._outbox.pop(0).close()
        self._register()

    def _read(self) -> Outcome | None:
        count = 0
        with contextlib.suppress(OSError):
            count = self.output.fill(self._fd)
        if not count and self.output.free_bytes:
            return _death(_wait_briefly(self._pid) if self._status is None else self._status)
        while length := self.output.line_bytes():
            self.lines.append(length)
            if not self._listening:  # an outcome: the turn of the next call begins
                self._turn_end = time.monotonic() + self._turn_s
        if not self.output.free_bytes:
            return {"status": "output_limit"}
        return {"status": "garbled"} if len(self.output) - sum(self.lines) > self._max_line_bytes else None


def _wait_status(pid: int) -> int | None:
    done, status = os.waitpid(pid, os.WNOHANG)
    return status if done else None


def _wait_briefly(pid: int) -> int | None:
    """Return the status of a process that closed its socket; None if it goes on without a way to answer."""
    deadline = time.monotonic() + EXIT_GRACE_S
    while (status := _wait_status(pid)) is None and time.monotonic() < deadline:
        time.sleep(0.001)
    return status


def _death(status: int | None) -> Outcome:
    if status is None:
        return {"status": "garbled"}
    if not os.WIFSIGNALED(status):
        return {"status": "exited", "code": os.waitstatus_to_exitcode(status)}
    number = os.WTERMSIG(status)
    limit = limit_behind_signal(number)
    return {"status": limit} if limit else {"status": "killed", "code": number}

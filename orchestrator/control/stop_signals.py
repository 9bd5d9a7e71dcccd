"""Stopping a run on request: by a signal where the run has the main thread, by a `StopHandle` from any thread."""

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from typing import Any

from orchestrator.events import Message, emit

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def stop_signals() -> list[signal.Signals]:
    """Return the signals that ask a run to stop. A terminal that closes sends SIGHUP; under nohup it stays ignored."""
    return [
        number for number in SIGNALS if not (number is signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN)
    ]


@dataclass(slots=True)
class Stop:
    """The stop of one run. The first request ends it at the next batch boundary, the second one at once."""

    event: asyncio.Event
    main: "asyncio.Task[Any]"

    def ask(self) -> None:
        if self.event.is_set():
            self.main.cancel()
        else:
            emit(Message(text="stopping: the step is finished and a checkpoint written first; once more to end now"))
            self.event.set()


class StopHandle:
    """Stops a run from any thread; a request that comes before the run is kept for it."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a signal may come while this thread holds it
        self._pass_on: Callable[[], object] | None = None
        self._waiting = 0

    def ask(self) -> None:
        """Ask the run to stop, as one signal would."""
        with self._lock:
            if self._pass_on is None:
                self._waiting += 1
            else:
                self._pass_on()

    def connect(self, pass_on: Callable[[], object] | None) -> None:
        """Call `pass_on` for every request so far and from now on; None disconnects the run."""
        with self._lock:
            self._pass_on = pass_on
            while pass_on is not None and self._waiting:
                self._waiting -= 1
                pass_on()


@contextmanager
def stoppable(stop: Stop, stop_handle: StopHandle | None) -> Iterator[None]:
    """Inside, `stop` gets the handle's requests and, on the main thread, signals; old handlers come back after."""
    handle, loop = stop_handle or StopHandle(), asyncio.get_running_loop()
    with signals_to(handle):
        # a request of another thread, in whose context the run has no readers, is made in the context of the run
        handle.connect(partial(loop.call_soon_threadsafe, stop.ask, context=copy_context()))
        try:
            yield
        finally:
            handle.connect(None)


@contextmanager
def signals_to(stop_handle: StopHandle) -> Iterator[None]:
    """Inside, signals are requests to the handle, if this is the main thread; the old handlers come back after."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = [(number, signal.signal(number, lambda *_: stop_handle.ask())) for number in stop_signals()]
    try:
        yield
    finally:
        for number, handler in former:
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

"""Ending a run on request: by a signal where the run has the main thread, by a switch from any other."""

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from orchestrator.progress import Progress

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(slots=True)
class Stop:
    """Asked for once: end at the batch boundary. Asked for twice: end now."""

    event: asyncio.Event
    main: "asyncio.Task[Any]"
    progress: Progress

    def ask(self) -> None:
        if self.event.is_set():
            self.main.cancel()
        else:
            self.progress.say("stopping: the step is finished and a checkpoint written first; once more to end now")
            self.event.set()


class Switch:
    """`ask` may be called from any thread, also before there is a run that listens."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pass_on: Callable[[], None] | None = None
        self._waiting = 0

    def ask(self) -> None:
        """Ask the run to stop, as one signal would."""
        with self._lock:
            if self._pass_on is None:
                self._waiting += 1
            else:
                self._pass_on()

    def connect(self, pass_on: Callable[[], None] | None) -> None:
        """`pass_on` hears what was asked until now, and from now on; None: nobody listens any more."""
        with self._lock:
            self._pass_on = pass_on
            while pass_on is not None and self._waiting:
                self._waiting -= 1
                pass_on()


@contextmanager
def listening(stop: Stop, switch: Switch | None) -> Iterator[None]:
    """Inside, `stop` hears the switch and, on the main thread, the signals, which have their old meaning afterwards."""
    loop = asyncio.get_running_loop()
    on_main = threading.current_thread() is threading.main_thread()
    former = [(number, signal.getsignal(number)) for number in SIGNALS] if on_main else []
    for number, _ in former:
        loop.add_signal_handler(number, stop.ask)
    if switch is not None:
        switch.connect(partial(_pass_on, loop, stop))
    try:
        yield
    finally:
        if switch is not None:
            switch.connect(None)
        for number, handler in former:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


@contextmanager
def signals_to(switch: Switch) -> Iterator[None]:
    """Inside, the signals ask the switch, if this is the main thread; afterwards they have their old meaning."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = [(number, signal.signal(number, lambda *_: switch.ask())) for number in SIGNALS]
    try:
        yield
    finally:
        for number, handler in former:
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _pass_on(loop: asyncio.AbstractEventLoop, stop: Stop) -> None:
    loop.call_soon_threadsafe(stop.ask)

"""What an actor does now, in words, for its `repr`; and a line in its log when it is done."""

import logging
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

from sdpo.log_line import about
from sdpo.show import show_error


class Doing:
    """`str` is for example `judging 4`, or `idle`. Thread-safe."""

    def __init__(self, log: logging.Logger) -> None:
        self._log, self._lock = log, Lock()
        self._work = Counter[str]()

    def __str__(self) -> str:
        with self._lock:
            work = {what: amount for what, amount in self._work.items() if amount}
        return ", ".join(what if amount == 1 else f"{what} {amount}" for what, amount in work.items()) or "idle"

    @contextmanager
    def __call__(
        self, what: str, amount: int = 1, *, step: int | None = None, task: str | None = None
    ) -> Iterator[list[str]]:
        """While it is done, `what` counts `amount` more; lines that are logged meanwhile carry `step` and `task`.

        The end is logged with the seconds that it took and what was put into the list that this gives; an error as a
        warning, and it goes on its way.
        """
        began, results = time.monotonic(), list[str]()
        with self._lock:
            self._work[what] += amount
        with about(step=step, task=task):
            shown = what if amount == 1 else f"{what} {amount}"
            try:
                yield results
            except Exception as error:
                self._log.warning("%s failed after %.3f s: %s", shown, time.monotonic() - began, show_error(error))
                raise
            else:
                self._log.info(" ".join([f"{shown} took {time.monotonic() - began:.3f} s", *results]))
            finally:
                with self._lock:
                    self._work[what] -= amount

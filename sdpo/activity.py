"""Tracks what an actor does now, as text for its `repr`, and logs each activity when it ends."""

import logging
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

from sdpo.errors import UserError
from sdpo.log_line import log_context
from sdpo.show import show_error


class Activity:
    """The present activities of an actor. `str` is for example `judging 4`, or `idle`. Thread-safe."""

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
        """Count `amount` units of `what` within the block; lines that are logged inside carry `step` and `task`.

        The end is logged with its seconds and the texts that were added to the yielded list. An error is logged as a
        warning and raised again; a `UserError`, which ends the command and is printed there, is no warning.
        """
        began, results = time.monotonic(), list[str]()
        with self._lock:
            self._work[what] += amount
        with log_context(step=step, task=task):
            shown = what if amount == 1 else f"{what} {amount}"
            try:
                yield results
            except Exception as error:
                level = logging.INFO if isinstance(error, UserError) else logging.WARNING
                self._log.log(level, "%s failed after %.3f s: %s", shown, time.monotonic() - began, show_error(error))
                raise
            else:
                self._log.info(" ".join([f"{shown} took {time.monotonic() - began:.3f} s", *results]))
            finally:
                with self._lock:
                    self._work[what] -= amount

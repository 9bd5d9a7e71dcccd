"""A file in the run directory that asks the run to stop: for whoever shares the disk with the run, not the cluster.

The run takes the file away when it has seen it, which is the answer.
"""

import time
from pathlib import Path

from sdpo.errors import InfrastructureError

NAME = "stop"
LOOK_EVERY_S = 0.2


class StopFile:
    """Of the run directory `folder`."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / NAME

    def take(self) -> bool:
        """Whether a stop was asked for; the next call says False again."""
        try:
            self._file.unlink()
        except FileNotFoundError:
            return False
        return True

    def ask(self, timeout_s: float) -> None:
        """Ask, and wait until a run has heard it. Raises `InfrastructureError` if none has within `timeout_s`."""
        self._file.touch()
        deadline_s = time.monotonic() + timeout_s
        while self._file.exists():
            if time.monotonic() > deadline_s:
                self._file.unlink(missing_ok=True)
                raise InfrastructureError(f"{self._file.parent}: no run heard the stop within {timeout_s:g} s")
            time.sleep(LOOK_EVERY_S)

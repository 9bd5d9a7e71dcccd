"""A file in the run directory that asks the run to stop, for users who share the disk with the run, not the cluster.

The run takes the file away when it has seen it, which is the answer.
"""

import time
from pathlib import Path

from sdpo.errors import InfrastructureError
from sdpo.run_layout import STOP

LOOK_EVERY_S = 0.2


class StopFile:
    """The stop file of the run directory `folder`."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / STOP

    def take(self) -> bool:
        """Remove the file; return whether there was one."""
        try:
            self._file.unlink()
        except FileNotFoundError:
            return False
        return True

    def ask(self, timeout_s: float) -> None:
        """Create the file and wait until a run has removed it. Raises `InfrastructureError` after `timeout_s`."""
        self._file.touch()
        deadline_s = time.monotonic() + timeout_s
        while self._file.exists():
            if time.monotonic() > deadline_s:
                self._file.unlink(missing_ok=True)
                raise InfrastructureError(
                    f"{self._file.parent}: no run acknowledged the stop request within {timeout_s:g} s"
                )
            time.sleep(LOOK_EVERY_S)

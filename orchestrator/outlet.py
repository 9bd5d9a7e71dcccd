"""Standard output of a run: whoever reads it may go away, and the run goes on."""

import contextlib
import os
import sys
from typing import TextIO


class Outlet:
    """A text file around `stream` that never raises `OSError`: a run is worth more than the lines about it.

    After the first failed write (a closed pipe, a terminal that is gone, a full disk under a redirected output) the
    process's output goes to /dev/null, so that nothing that prints later fails either; standard error says so, once.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.encoding = getattr(stream, "encoding", None) or "utf-8"

    def write(self, text: str) -> int:
        """Returns the number of characters, written or not."""
        try:
            return self._stream.write(text)
        except OSError as error:
            self._give_up(error)
            return len(text)

    def flush(self) -> None:
        """Pass on what was written."""
        try:
            self._stream.flush()
        except OSError as error:
            self._give_up(error)

    def isatty(self) -> bool:
        """Whether a person watches."""
        return self._stream.isatty()

    def fileno(self) -> int:
        """As of the stream."""
        return self._stream.fileno()

    def _give_up(self, error: OSError) -> None:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)
        with contextlib.suppress(OSError):
            said = f"standard output is gone ({error.strerror}); the run goes on without it"
            print(said, file=sys.stderr, flush=True)

"""Standard output of a run, which continues when the reader of its output has gone."""

import contextlib
import os
import sys
from typing import TextIO


class SafeOutput:
    """A text file around `stream` that never raises `OSError`, because output must not end a run.

    After the first failed write (a closed pipe, a terminal that is gone, a full disk under a redirected output) the
    process's output goes to /dev/null, so that nothing that prints later fails either; standard error says so, once.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.encoding = getattr(stream, "encoding", None) or "utf-8"

    def write(self, text: str) -> int:
        """Write the text; return its number of characters, written or not."""
        try:
            return self._stream.write(text)
        except OSError as error:
            self._give_up(error)
            return len(text)

    def flush(self) -> None:
        """Flush the stream."""
        try:
            self._stream.flush()
        except OSError as error:
            self._give_up(error)

    def isatty(self) -> bool:
        """Return whether the stream is a terminal."""
        return self._stream.isatty()

    def fileno(self) -> int:
        """Return the stream's file descriptor."""
        return self._stream.fileno()

    def _give_up(self, error: OSError) -> None:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self._stream.fileno())
        os.close(null)
        with contextlib.suppress(OSError):
            message = f"standard output is gone ({error.strerror}); the run goes on without it"
            print(message, file=sys.stderr, flush=True)

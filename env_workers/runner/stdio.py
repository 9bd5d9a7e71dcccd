"""The standard streams of a program: bounded, captured, fresh for every call."""

import contextlib
import errno
import io
import os
import sys
from typing import Any

_NO_TMPFILE = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT)


class OutputFlood(BaseException):
    """The program wrote more than it may."""


class _Sink(io.RawIOBase):
    """The target of a program's stdout or stderr: a bounded buffer or a file descriptor, behind Python's own layers."""

    def __init__(self, max_bytes: int, fd: int | None = None) -> None:
        self.left_bytes, self.fd, self.buffer = max_bytes, fd, bytearray()
        self.flooded = self.closing = False

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        if self.fd is None:
            raise io.UnsupportedOperation("fileno")
        return self.fd

    def write(self, data: Any) -> int:
        size = len(data)
        self.left_bytes -= size
        self.flooded = self.flooded or self.left_bytes < 0
        if self.flooded:
            if not self.closing:
                raise OutputFlood
        elif self.fd is not None:
            os.write(self.fd, data)
        else:
            self.buffer += data
        return size


def open_standard_streams() -> None:
    """Make the standard streams of `python3` in UTF-8 mode over descriptors 0, 1 and 2, the original ones too."""
    sys.stdin = sys.__stdin__ = _open_stream(0, "r", "surrogateescape")  # type: ignore[misc]
    sys.stdout = sys.__stdout__ = _open_stream(1, "w", "surrogateescape")  # type: ignore[misc]
    sys.stderr = sys.__stderr__ = _open_stream(2, "w", "backslashreplace")  # type: ignore[misc]


def _open_stream(fd: int, mode: str, errors: str) -> io.TextIOWrapper:
    binary: Any = open(fd, f"{mode}b", closefd=False)  # noqa: SIM115  # it stays open
    binary.raw.name = ("<stdin>", "<stdout>", "<stderr>")[fd]
    stream: Any = io.TextIOWrapper(binary, "utf-8", errors, newline="\n", line_buffering=fd == 2)
    stream.mode = mode
    return stream  # type: ignore[no-any-return]


def _text_layer(raw: io.RawIOBase) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding="utf-8", errors="backslashreplace", write_through=False)


class Stdio:
    """Standard streams of one call, in memory: for trusted programs in the current process."""

    def __init__(self, max_output_bytes: int) -> None:
        self.max_output_bytes = max_output_bytes

    def enter(self, text: str) -> None:
        """Point sys.stdin, sys.stdout and sys.stderr at fresh streams; `text` is what stdin holds."""
        self.saved = sys.stdin, sys.stdout, sys.stderr
        self.out, self.err = self._sinks()
        sys.stdin = io.TextIOWrapper(io.BufferedReader(self._stdin(text.encode("utf-8", "surrogatepass"))), "utf-8")
        self.layers = sys.stdout, sys.stderr = _text_layer(self.out), _text_layer(self.err)

    def leave(self) -> bytes | None:
        """Restore the streams; return the bytes written to stdout, None when stdout or stderr passed their limit."""
        sys.stdin, sys.stdout, sys.stderr = self.saved
        flooded = self.out.flooded or self.err.flooded
        self.out.closing = self.err.closing = True
        for layer in self.layers:
            with contextlib.suppress(OSError, ValueError):  # the program may have closed or broken the stream
                layer.flush()
        written = self._written()
        flooded = flooded or self.out.flooded or self.err.flooded or len(written) > self.max_output_bytes
        return None if flooded else written

    def _sinks(self) -> tuple[_Sink, _Sink]:
        return _Sink(self.max_output_bytes), _Sink(self.max_output_bytes)

    def _stdin(self, data: bytes) -> Any:
        return io.BytesIO(data)

    def _written(self) -> bytes:
        return bytes(self.out.buffer)


class FdStdio(Stdio):
    """As Stdio, with descriptors 0 and 1 too (`open(0)`, `os.write(1, ...)`): for functions in a process of its own.

    stdin is empty. stdout is a nameless file in `folder`, which serves call after call.
    """

    def __init__(self, max_output_bytes: int, folder: str) -> None:
        super().__init__(max_output_bytes)
        self.folder = folder
        self.null = os.open(os.devnull, os.O_RDONLY)
        self.file = self._nameless_file()

    def _nameless_file(self) -> int:
        try:
            return os.open(self.folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as error:
            if error.errno not in _NO_TMPFILE:
                raise
        path = os.path.join(self.folder, ".stdio")
        file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
        os.unlink(path)
        return file

    def _sinks(self) -> tuple[_Sink, _Sink]:
        try:
            os.dup2(self.file, 1)
        except OSError:  # the program closed it
            self.file = self._nameless_file()
            os.dup2(self.file, 1)
        return _Sink(self.max_output_bytes, fd=1), _Sink(self.max_output_bytes)

    def input_file(self, text: str) -> int:
        """Return a descriptor from which `text` can be read; the caller closes it."""
        if not text:
            return os.dup(self.null)
        file = self._nameless_file()
        try:
            with open(file, "wb", closefd=False) as writer:
                writer.write(text.encode("utf-8", "surrogatepass"))
            os.lseek(file, 0, os.SEEK_SET)
        except BaseException:
            os.close(file)
            raise
        return file

    def _stdin(self, data: bytes) -> Any:
        os.dup2(self.null, 0)
        return open(0, "rb", buffering=0, closefd=False)

    def _written(self) -> bytes:
        try:
            written = os.pread(self.file, self.max_output_bytes + 1, 0)
            if written:
                os.ftruncate(self.file, 0)
                os.lseek(self.file, 0, os.SEEK_SET)
        except OSError:
            return b""  # the program closed our descriptor: its output is gone, and that is its own doing
        return written

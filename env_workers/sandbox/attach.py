"""The byte stream of an attached container: what goes to its stdin, and what comes back, sorted by where it came from.

The engine answers in chunks: one byte that says which stream (1 stdout, 2 stderr), three zero bytes, the size
(big-endian uint32), the bytes.
"""

import contextlib
import select
import socket
import ssl
import struct
import time
from typing import Any

from sdpo.errors import InfrastructureError

MAX_COMPLAINT_BYTES = 4096
_HEADER = struct.Struct(">BxxxI")
_STDOUT, _STDERR = 1, 2
_CHUNK_BYTES = 2**16
_NOT_YET = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class AttachStream:
    """A `Stream` (env_workers.sandbox.channel) over `docker.APIClient.attach_socket`, which it owns.

    Attach before the container starts: until then nothing can have been read by the HTTP client beneath.
    """

    def __init__(self, attached: Any) -> None:
        self._attached = attached
        self._socket: socket.socket = getattr(attached, "_sock", attached)
        self._socket.setblocking(False)
        self._readable, self._writable = select.poll(), select.poll()
        self._readable.register(self._socket, select.POLLIN)
        self._writable.register(self._socket, select.POLLOUT)
        self._raw = bytearray()
        self._output = bytearray()
        self._complaint = bytearray()

    @property
    def complaint(self) -> str:
        """The end of what the container wrote to stderr so far."""
        return self._complaint.decode(errors="replace").strip()

    def read_exactly(self, size: int, deadline: float) -> bytes:
        """See `Stream.read_exactly`."""
        while len(self._output) < size:
            if not self._receive(deadline):
                raise InfrastructureError("the container's stream ended")
        data = bytes(memoryview(self._output)[:size])
        del self._output[:size]
        return data

    def write_all(self, data: bytes, deadline: float) -> None:
        """See `Stream.write_all`."""
        left = memoryview(data)
        while left:
            _check(deadline)
            try:
                left = left[self._socket.send(left) :]
            except _NOT_YET:
                _wait(self._writable, deadline)
            except OSError as error:
                raise InfrastructureError(f"the container's stream broke: {error}") from None

    def read_rest(self, timeout_s: float) -> None:
        """Reads on until the stream ends, for what the container has yet to say on stderr."""
        deadline = time.monotonic() + timeout_s
        with contextlib.suppress(InfrastructureError):
            while self._receive(deadline):
                self._output.clear()

    def close(self) -> None:
        """Closes the connection, and with it the container's stdin."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        response = getattr(self._attached, "_response", None)
        if response is not None:
            response.close()
        self._attached.close()
        self._socket.close()

    def _receive(self, deadline: float) -> bool:
        """One read and what follows from it; False at the end of the stream."""
        _check(deadline)
        try:
            chunk = self._socket.recv(_CHUNK_BYTES)
        except _NOT_YET:
            _wait(self._readable, deadline)
            return True
        except OSError as error:
            raise InfrastructureError(f"the container's stream broke: {error}") from None
        self._raw += chunk
        self._sort()
        return bool(chunk)

    def _sort(self) -> None:
        position, raw = 0, self._raw
        while len(raw) - position >= _HEADER.size:
            origin, size = _HEADER.unpack_from(raw, position)
            begin, end = position + _HEADER.size, position + _HEADER.size + size
            if origin not in (_STDOUT, _STDERR):
                raise InfrastructureError(f"the engine sent a chunk of unknown origin {origin}")
            if len(raw) < end:
                break
            if origin == _STDOUT:
                self._output += raw[begin:end]
            else:
                self._complaint += raw[begin:end]
                del self._complaint[:-MAX_COMPLAINT_BYTES]
            position = end
        del raw[:position]


def _wait(poller: select.poll, deadline: float) -> None:
    _check(deadline)
    poller.poll(max(0.0, deadline - time.monotonic()) * 1000)


def _check(deadline: float) -> None:
    """Called before every step: a stream that always has more does not hold anybody for ever."""
    if time.monotonic() >= deadline:
        raise InfrastructureError("the container did not answer in time")

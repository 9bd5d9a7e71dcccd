"""The byte stream of an attached container: its stdin, and its stdout and stderr, taken apart.

The engine answers in chunks: one byte that says which stream (1 stdout, 2 stderr), three zero bytes, the size
(big-endian uint32), the bytes.
"""

import contextlib
import socket
import struct
import time
from typing import Any

from env_workers.sandbox.channel import CHUNK_BYTES, NOT_YET, Stream
from sdpo.errors import InfrastructureError

MAX_COMPLAINT_BYTES = 4096
_HEADER = struct.Struct(">BxxxI")
_STDOUT, _STDERR = 1, 2


class AttachStream(Stream):
    """A `Stream` over `docker.APIClient.attach_socket`, which it owns.

    Attach before the container starts: until then the HTTP client beneath can have read nothing of it.
    """

    name = "the container"

    def __init__(self, attached: Any) -> None:
        self._attached = attached
        self._socket: socket.socket = getattr(attached, "_sock", attached)
        self._socket.setblocking(False)
        super().__init__(self._socket.fileno(), self._socket.fileno())
        self._raw = bytearray()
        self._complaint = bytearray()

    @property
    def complaint(self) -> str:
        """The end of what the container wrote to stderr so far."""
        return self._complaint.decode(errors="replace").strip()

    def read_rest(self, timeout_s: float) -> None:
        """Read on until the stream ends, for what the container has yet to write to stderr."""
        deadline = time.monotonic() + timeout_s
        with contextlib.suppress(InfrastructureError):
            while self._receive(deadline):
                self._output.clear()

    def close(self) -> None:
        """Close the connection, and with it the container's stdin."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        response = getattr(self._attached, "_response", None)
        if response is not None:
            response.close()
        self._attached.close()
        self._socket.close()

    def _receive(self, deadline: float) -> bool:
        self._check(deadline)
        try:
            chunk = self._socket.recv(CHUNK_BYTES)
        except NOT_YET:
            self._wait(self._readable, deadline)
            return True
        except OSError as error:
            raise self._broken(error) from None
        self._raw += chunk
        self._take_apart()
        return bool(chunk)

    def _send(self, data: memoryview) -> int:
        return self._socket.send(data)

    def _take_apart(self) -> None:
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

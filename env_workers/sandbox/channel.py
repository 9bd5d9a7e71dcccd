"""Frames to and from the runner in a sandbox (see `env_workers.runner.framing`), every wait with a deadline."""

import os
import select
import time
from collections.abc import Mapping
from typing import Any, Protocol

from env_workers.runner.framing import MAX_FRAME_BYTES, SIZES, check_sizes, pack, parse_head
from sdpo.errors import InfrastructureError


class Stream(Protocol):
    """Bytes to and from a sandbox. Deadlines are times of time.monotonic(), in seconds."""

    def read_exactly(self, size: int, deadline: float) -> bytes:
        """`size` bytes. Raises InfrastructureError when the other side closed or the deadline passed."""
        ...

    def write_all(self, data: bytes, deadline: float) -> None:
        """Writes everything. Raises as `read_exactly`."""
        ...


class Channel:
    """The host's end of the protocol over any `Stream`. After an error the sandbox is to be closed."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def boot(self, bundle: bytes, settings: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
        """Sends the runner and its settings; what the runner says of itself. Call once, first."""
        deadline = time.monotonic() + timeout_s
        size = len(bundle).to_bytes(4, "big")
        self._stream.write_all(size + bundle + pack(settings), deadline)
        facts, _ = self._receive(deadline)
        if facts.get("ready") is not True:
            raise InfrastructureError(f"the sandbox's runner did not start: {facts!r:.500}")
        return facts

    def send(self, head: Mapping[str, Any], body: bytes, timeout_s: float) -> None:
        """Sends one frame. Raises InfrastructureError."""
        size = len(body)
        if size > MAX_FRAME_BYTES:
            raise InfrastructureError(f"the sandbox was to receive {size} bytes; at most {MAX_FRAME_BYTES}")
        self._stream.write_all(pack(head, body), time.monotonic() + timeout_s)

    def receive(self, timeout_s: float) -> tuple[dict[str, Any], bytes]:
        """The next frame: its head and its body. Raises InfrastructureError."""
        return self._receive(time.monotonic() + timeout_s)

    def _receive(self, deadline: float) -> tuple[dict[str, Any], bytes]:
        sizes = self._stream.read_exactly(SIZES.size, deadline)
        try:
            head_size, body_size = check_sizes(sizes)
        except ValueError as error:
            raise InfrastructureError(f"the sandbox sent {error}") from None
        data = self._stream.read_exactly(head_size + body_size, deadline)
        try:
            return parse_head(data[:head_size]), data[head_size:]
        except ValueError as error:
            raise InfrastructureError(f"the sandbox sent {error}") from None


class PipeStream:
    """A `Stream` over two non-blocking descriptors, which stay the caller's."""

    def __init__(self, read_fd: int, write_fd: int) -> None:
        self._read_fd, self._write_fd = read_fd, write_fd
        os.set_blocking(read_fd, False)
        os.set_blocking(write_fd, False)
        self._readable, self._writable = select.poll(), select.poll()
        self._readable.register(read_fd, select.POLLIN)
        self._writable.register(write_fd, select.POLLOUT)
        self._buffer = bytearray()

    def read_exactly(self, size: int, deadline: float) -> bytes:
        """See `Stream.read_exactly`."""
        buffer = self._buffer
        while len(buffer) < size:
            _wait(self._readable, deadline)
            try:
                chunk = os.read(self._read_fd, max(2**16, size - len(buffer)))
            except BlockingIOError:
                continue
            except OSError:
                chunk = b""
            if not chunk:
                raise InfrastructureError("the sandbox closed its pipe")
            buffer += chunk
        data = bytes(memoryview(buffer)[:size])
        del buffer[:size]
        return data

    def write_all(self, data: bytes, deadline: float) -> None:
        """See `Stream.write_all`."""
        left = memoryview(data)
        while left:
            try:
                left = left[os.write(self._write_fd, left) :]
            except BlockingIOError:
                _wait(self._writable, deadline)
            except OSError:
                raise InfrastructureError("the sandbox closed its pipe") from None


def _wait(poller: select.poll, deadline: float) -> None:
    if not poller.poll(max(0.0, deadline - time.monotonic()) * 1000):
        raise InfrastructureError("the sandbox did not answer in time")

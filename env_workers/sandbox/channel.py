"""Frames to and from the runner in a sandbox (see `env_workers.runner.framing`), every wait with a deadline."""

import os
import select
import ssl
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from env_workers.runner.framing import MAX_FRAME_BYTES, SIZES, check_sizes, pack, parse_head
from sdpo.errors import InfrastructureError

CHUNK_BYTES = 2**16
NOT_YET = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Stream(ABC):
    """Bytes to and from a sandbox, over non-blocking descriptors. Deadlines are times of time.monotonic(), in s."""

    name = "the sandbox"

    def __init__(self, read_fd: int, write_fd: int) -> None:
        self._readable, self._writable = select.poll(), select.poll()
        self._readable.register(read_fd, select.POLLIN)
        self._writable.register(write_fd, select.POLLOUT)
        self._output = bytearray()

    def read_exactly(self, size: int, deadline: float) -> bytes:
        """Return `size` bytes. Raises InfrastructureError when the other side closed or the deadline passed."""
        while len(self._output) < size:
            if not self._receive(deadline):
                raise InfrastructureError(f"{self.name}'s stream ended")
        data = bytes(memoryview(self._output)[:size])
        del self._output[:size]
        return data

    def write_all(self, data: bytes, deadline: float) -> None:
        """Write everything. Raises as `read_exactly`."""
        left = memoryview(data)
        while left:
            self._check(deadline)
            try:
                left = left[self._send(left) :]
            except NOT_YET:
                self._wait(self._writable, deadline)
            except OSError as error:
                raise self._broken(error) from None

    @abstractmethod
    def _receive(self, deadline: float) -> bool:
        """Read once into `_output`, or wait until there is something to read; False at the end of the stream."""

    @abstractmethod
    def _send(self, data: memoryview) -> int:
        """Write once; return the number of bytes written. Raises OSError."""

    def _wait(self, poller: select.poll, deadline: float) -> None:
        self._check(deadline)
        poller.poll(max(0.0, deadline - time.monotonic()) * 1000)

    def _check(self, deadline: float) -> None:
        """Called before every step: a stream that always has more to read ends at the deadline, too."""
        if time.monotonic() >= deadline:
            raise InfrastructureError(f"{self.name} did not answer in time")

    def _broken(self, error: OSError) -> InfrastructureError:
        return InfrastructureError(f"{self.name}'s stream broke: {error}")


class Channel:
    """The host's end of the protocol, over any `Stream`. After an error the sandbox is to be closed."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def boot(self, bundle: bytes, settings: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
        """Send the runner and its settings; return the facts that it reports. Call once, first."""
        deadline = time.monotonic() + timeout_s
        size = len(bundle).to_bytes(4, "big")
        self._stream.write_all(size + bundle + pack(settings), deadline)
        facts, _ = self._receive(deadline)
        if facts.get("ready") is not True:
            raise InfrastructureError(f"the sandbox's runner did not start: {facts!r:.500}")
        return facts

    def send(self, head: Mapping[str, Any], body: bytes, timeout_s: float) -> None:
        """Send one frame. Raises InfrastructureError."""
        size = len(body)
        if size > MAX_FRAME_BYTES:
            raise InfrastructureError(f"the sandbox was to receive {size} bytes; at most {MAX_FRAME_BYTES}")
        self._stream.write_all(pack(head, body), time.monotonic() + timeout_s)

    def receive(self, timeout_s: float) -> tuple[dict[str, Any], bytes]:
        """Return the next frame: its head and its body. Raises InfrastructureError."""
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


class PipeStream(Stream):
    """A `Stream` over two pipes, which stay the caller's."""

    def __init__(self, read_fd: int, write_fd: int) -> None:
        super().__init__(read_fd, write_fd)
        self._read_fd, self._write_fd = read_fd, write_fd
        os.set_blocking(read_fd, False)
        os.set_blocking(write_fd, False)

    def _receive(self, deadline: float) -> bool:
        self._wait(self._readable, deadline)
        try:
            chunk = os.read(self._read_fd, CHUNK_BYTES)
        except NOT_YET:
            return True
        except OSError as error:
            raise self._broken(error) from None
        self._output += chunk
        return bool(chunk)

    def _send(self, data: memoryview) -> int:
        return os.write(self._write_fd, data)

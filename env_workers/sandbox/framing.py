"""Length-prefixed JSON over a pair of file descriptors, every wait with a deadline. Standard library only.

A frame is a big-endian uint32 length and that many bytes of UTF-8 JSON, at most MAX_FRAME_BYTES.
"""

import json
import os
import select
import struct
import time
from typing import Any

MAX_FRAME_BYTES = 16 * 2**20
_HEADER = struct.Struct(">I")


class FrameError(Exception):
    """The other side closed, fell silent, or sent something that is not a frame. The message says which."""


def read_frame(fd: int, timeout_s: float | None) -> Any:
    """One decoded frame; `timeout_s` None waits for ever (PID 1 between requests)."""
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    (size,) = _HEADER.unpack(_read_exactly(fd, _HEADER.size, deadline))
    if size > MAX_FRAME_BYTES:
        raise FrameError(f"sent a frame of {size} bytes")
    try:
        return json.loads(_read_exactly(fd, size, deadline))
    except (ValueError, RecursionError):
        raise FrameError("sent a frame that is not JSON") from None


def write_frame(fd: int, message: Any, timeout_s: float) -> None:
    """Sends one message; `fd` must be non-blocking for the deadline to hold."""
    data = json.dumps(message, separators=(",", ":")).encode()
    if len(data) > MAX_FRAME_BYTES:
        raise FrameError(f"was to receive a frame of {len(data)} bytes; at most {MAX_FRAME_BYTES}")
    left = memoryview(_HEADER.pack(len(data)) + data)
    deadline = time.monotonic() + timeout_s
    while left:
        _wait(fd, select.POLLOUT, deadline)
        try:
            left = left[os.write(fd, left) :]
        except BlockingIOError:
            continue
        except OSError:
            raise FrameError("closed its pipe") from None


def _read_exactly(fd: int, size: int, deadline: float | None) -> bytes:
    data = bytearray()
    while len(data) < size:
        _wait(fd, select.POLLIN, deadline)
        chunk = os.read(fd, min(size - len(data), 2**20))
        if not chunk:
            raise FrameError("closed its pipe")
        data += chunk
    return bytes(data)


def _wait(fd: int, event: int, deadline: float | None) -> None:
    poller = select.poll()
    poller.register(fd, event)
    left_ms = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
    if not poller.poll(left_ms):
        raise FrameError("did not answer in time")

"""The buffers in which PID 1 passes on the bytes of programs.

Every program runs in a copy of PID 1. PID 1 therefore never holds a program or a test in ordinary objects, whose
remains a later program could find: only in buffers whose memory goes back to the kernel.
"""

import mmap
import os

CHUNK_BYTES = 2**16


class Buffer:
    """A queue of at most `capacity` bytes; pages are only taken as they are filled."""

    def __init__(self, capacity: int) -> None:
        self._memory = mmap.mmap(-1, max(1, capacity), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._view = memoryview(self._memory)
        self._capacity = capacity
        self._begin = self._end = self._scanned = 0

    def __len__(self) -> int:
        return self._end - self._begin

    @property
    def free_bytes(self) -> int:
        """Bytes that `fill` can still take."""
        return self._capacity - self._end

    def put(self, data: bytes) -> None:
        """Append bytes of the protocol, not of a program."""
        self._view[self._end : self._end + len(data)] = data
        self._end += len(data)

    def fill(self, fd: int, most: int = CHUNK_BYTES) -> int:
        """Read once from `fd`, at most `most` bytes.

        Return the number, 0 at the stream's end or when the buffer is full.
        """
        with self._view[self._end : self._end + min(most, self.free_bytes)] as target:
            count = os.readv(fd, [target]) if len(target) else 0
        self._end += count
        return count

    def drain(self, fd: int, most: int | None = None) -> int:
        """Write once to `fd` from the front, at most `most` bytes; return the number written."""
        stop = self._end if most is None else min(self._end, self._begin + most)
        with self._view[self._begin : stop] as data:
            count = os.write(fd, data)
        self._begin += count
        return count

    def first(self) -> int:
        """Return the first byte. The buffer must not be empty."""
        return self._view[self._begin]

    def line_bytes(self) -> int:
        """Count the next line; return its length, newline included, 0 while there is none."""
        newline = self._memory.find(b"\n", max(self._scanned, self._begin), self._end)
        if newline < 0:
            return 0
        length = newline + 1 - max(self._scanned, self._begin)
        self._scanned = newline + 1
        return length

    def skip(self, count: int) -> None:
        """Drop bytes from the front."""
        self._begin += count

    def compact(self) -> None:
        """Move what is left to the front, so that all of the free space is behind it."""
        left = len(self)
        if self._begin:
            self._memory.move(0, self._begin, left)
            self._scanned = max(0, self._scanned - self._begin)
            self._begin, self._end = 0, left

    def close(self) -> None:
        """Give the memory back. May be called twice."""
        self._view.release()
        self._memory.close()

"""How bytes of programs pass PID 1.

Every program runs in a copy of PID 1, so PID 1 never holds what a program or a test is made of in ordinary objects,
whose remains an inquisitive successor could find: only in buffers whose memory goes back to the kernel.
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
    def room(self) -> int:
        """Bytes that `fill` can still take."""
        return self._capacity - self._end

    def put(self, data: bytes) -> None:
        """Appends bytes of the protocol, not of a program."""
        self._view[self._end : self._end + len(data)] = data
        self._end += len(data)

    def fill(self, fd: int, most: int = CHUNK_BYTES) -> int:
        """Reads once from `fd`, at most `most` bytes; the number read, 0 at the end of the stream or without room."""
        with self._view[self._end : self._end + min(most, self.room)] as room:
            count = os.readv(fd, [room]) if len(room) else 0
        self._end += count
        return count

    def drain(self, fd: int, most: int | None = None) -> int:
        """Writes once to `fd` from the front, at most `most` bytes; the number written."""
        stop = self._end if most is None else min(self._end, self._begin + most)
        with self._view[self._begin : stop] as data:
            count = os.write(fd, data)
        self._begin += count
        return count

    def first(self) -> int:
        """The first byte. The buffer must not be empty."""
        return self._view[self._begin]

    def line_bytes(self) -> int:
        """Length of the first line that was not counted yet, newline included, 0 while there is none. Counts it."""
        found = self._memory.find(b"\n", max(self._scanned, self._begin), self._end)
        if found < 0:
            return 0
        length = found + 1 - max(self._scanned, self._begin)
        self._scanned = found + 1
        return length

    def skip(self, count: int) -> None:
        """Drops bytes from the front."""
        self._begin += count

    def compact(self) -> None:
        """Moves what is left to the front: all of the room again."""
        left = len(self)
        if self._begin:
            self._memory.move(0, self._begin, left)
            self._scanned = max(0, self._scanned - self._begin)
            self._begin, self._end = 0, left

    def close(self) -> None:
        """Gives the memory back. May be called twice."""
        self._view.release()
        self._memory.close()

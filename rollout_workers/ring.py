"""A bounded ring in shared memory that carries weight buckets from the actor into vLLM's processes.

The memory is an anonymous file (memfd) that readers open through /proc/PID/fd. It never has a name of its own, so no
file is left behind, however the processes end.
"""

import mmap
import os
from dataclasses import dataclass

import numpy as np

from sdpo.weights import UInt8

NUM_SLOTS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class RingAddress:
    """What a reader needs to map the ring: its path, its whole size in bytes, and the file's identity."""

    path: str
    num_bytes: int
    inode: int


class SharedRing:
    """`NUM_SLOTS` slots of `slot_bytes` each. The system allocates pages when they are first written."""

    def __init__(self, slot_bytes: int) -> None:
        self.slot_bytes = slot_bytes
        num_bytes = NUM_SLOTS * slot_bytes
        self._fd = os.memfd_create("sdpo-weights", os.MFD_CLOEXEC)
        os.ftruncate(self._fd, num_bytes)
        self._map = mmap.mmap(self._fd, num_bytes)
        path = f"/proc/{os.getpid()}/fd/{self._fd}"
        self.address = RingAddress(path=path, num_bytes=num_bytes, inode=os.fstat(self._fd).st_ino)

    def write(self, slot: int, data: UInt8) -> int:
        """Copy uint8 [n <= slot_bytes] into a slot; return its offset in the ring in bytes."""
        offset = slot * self.slot_bytes
        np.frombuffer(self._map, np.uint8, count=data.nbytes, offset=offset)[:] = data
        return offset

    def close(self) -> None:
        """Release the memory; a second call does nothing. Readers that have it mapped keep it until they unmap."""
        if not self._map.closed:
            self._map.close()
            os.close(self._fd)

"""The shared-memory ring of weight buckets."""

import mmap
import os
from pathlib import Path

import numpy as np
import pytest

from rollout_workers.ring import NUM_SLOTS, SharedRing


def test_a_reader_sees_what_was_written_to_each_slot() -> None:
    ring = SharedRing(4096)
    try:
        data = [np.full(size, value, np.uint8) for size, value in ((100, 100), (4096, 7))]
        offsets = [ring.write(slot, data[slot]) for slot in range(NUM_SLOTS)]
        assert offsets == [0, 4096]
        with open(ring.address.path, "r+b") as file:
            assert os.fstat(file.fileno()).st_ino == ring.address.inode
            reader = mmap.mmap(file.fileno(), ring.address.num_bytes)
        for offset, expected in zip(offsets, data, strict=True):
            assert np.array_equal(np.frombuffer(reader[offset : offset + expected.nbytes], np.uint8), expected)
    finally:
        ring.close()
    assert reader[0] == 100, "a reader that has mapped it keeps it"


def test_a_closed_ring_has_no_file_left_and_can_be_closed_again() -> None:
    ring = SharedRing(1024)
    path, descriptor = Path(ring.address.path), ring._fd
    ring.close()
    ring.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
    assert not path.exists() or path.stat().st_ino != ring.address.inode

"""Numbers that depend on names only: a seed for every sample, and who serves a task; on no order and no restart."""

import hashlib


def sample_seed(run_seed: int, purpose: str, step: int, task_id: str, sample_index: int) -> int:
    """A seed in [0, 2**31) for one completion; `purpose` keeps training and evaluation apart."""
    key = f"{run_seed}/{purpose}/{step}/{task_id}/{sample_index}".encode()
    return int.from_bytes(hashlib.sha256(key).digest()[:4], "big") >> 1


def turn_seed(first_seed: int, turn: int) -> int:
    """The seed of an attempt's turn `turn` >= 1, counted from 0, in [0, 2**31). `first_seed` is that of turn 0."""
    return int.from_bytes(hashlib.sha256(f"{first_seed}/turn/{turn}".encode()).digest()[:4], "big") >> 1


def stable_index(key: str, count: int) -> int:
    """An index in [0, count) that depends on `key` only, the same in every process."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") % count

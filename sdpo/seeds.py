"""Numbers that depend on names only, not on order or restarts: a seed for every sample, an actor for every task."""

import hashlib


def sample_seed(run_seed: int, purpose: str, step: int, task_id: str, sample_index: int) -> int:
    """Return a seed in [0, 2**31) for one completion; `purpose` keeps training and evaluation apart."""
    key = f"{run_seed}/{purpose}/{step}/{task_id}/{sample_index}".encode()
    return int.from_bytes(hashlib.sha256(key).digest()[:4], "big") >> 1


def turn_seed(first_seed: int, turn: int) -> int:
    """Return the seed of turn `turn` >= 1, counted from 0, in [0, 2**31). Turn 0 has `first_seed`."""
    return int.from_bytes(hashlib.sha256(f"{first_seed}/turn/{turn}".encode()).digest()[:4], "big") >> 1


def stable_index(key: str, count: int) -> int:
    """Return an index in [0, count) that depends on `key` only, the same in every process."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") % count

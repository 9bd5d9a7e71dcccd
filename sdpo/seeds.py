"""One seed for every sample, a function of what it is for and of nothing else (workers, order, restarts)."""

import hashlib


def sample_seed(run_seed: int, purpose: str, step: int, task_id: str, sample_index: int) -> int:
    """A seed in [0, 2**31) for one completion; `purpose` keeps training and evaluation apart."""
    key = f"{run_seed}/{purpose}/{step}/{task_id}/{sample_index}".encode()
    return int.from_bytes(hashlib.sha256(key).digest()[:4], "big") >> 1

"""Discovery@k and mean attempts to the first success (paper, section 5)."""

from collections.abc import Sequence

import numpy as np


def discovery_at_k(first_successes: Sequence[int | None], k: int) -> float:
    """Share of runs whose first success is among their first k attempts (paper, section 5).

    One entry a run at the same task: the number of the attempt, from 1, or None if it never succeeded. Attempts are
    numbered one by one: slot j of iteration i of batches of n is attempt n (i - 1) + j. Raises `ValueError` for no
    runs, k below 1 or an attempt below 1.
    """
    _check_first_successes(first_successes, "k", k)
    return sum(first is not None and first <= k for first in first_successes) / len(first_successes)


def mean_discovery_at_k(first_successes_by_task: Sequence[Sequence[int | None]], k: int) -> float:
    """discovery@k averaged over tasks. Raises `ValueError` without tasks and as `discovery_at_k`."""
    if not first_successes_by_task:
        raise ValueError("first_successes_by_task=[]: allowed: at least one task")
    return float(np.mean([discovery_at_k(runs, k) for runs in first_successes_by_task]))


def truncated_mean_attempts(first_successes: Sequence[int | None], budget: int) -> float:
    """Mean attempts to the first success over runs at one task; a run that needs more than `budget` counts as it.

    Raises `ValueError` as `discovery_at_k`.
    """
    _check_first_successes(first_successes, "budget", budget)
    return float(np.mean([budget if first is None else min(first, budget) for first in first_successes]))


def _check_first_successes(first_successes: Sequence[int | None], name: str, limit: int) -> None:
    if not first_successes or limit < 1 or any(first is not None and first < 1 for first in first_successes):
        raise ValueError(
            f"first_successes={list(first_successes)}, {name}={limit}: allowed: at least one run, numbers from 1"
        )

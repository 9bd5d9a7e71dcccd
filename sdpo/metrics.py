"""Estimates from counted successes and their uncertainty. Pure functions on numpy, nothing else.

Attempts at one task are not independent of each other: the interval of a mean over tasks is one over tasks, see
`interval_over_tasks`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """95 % interval of a mean, and how it was found."""

    low: float
    high: float
    method: Literal["wilson", "bootstrap"]


def pass_at_k(num_samples: int, num_successes: int, k: int) -> float:
    """Unbiased probability that at least one of k samples is a success, from num_samples >= k of them.

    Raises `ValueError` if the counts do not fit together.
    """
    if not 0 <= num_successes <= num_samples or not 1 <= k <= num_samples:
        raise ValueError(
            f"num_samples={num_samples}, num_successes={num_successes}, k={k}: "
            f"allowed: 0 <= num_successes <= num_samples and 1 <= k <= num_samples"
        )
    return 1.0 - math.comb(num_samples - num_successes, k) / math.comb(num_samples, k)


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


def wilson_interval(num_successes: int, num_samples: int, z: float = 1.959964) -> tuple[float, float]:
    """Wilson's score interval of a proportion; the default z covers 95 %. Without samples (0, 1)."""
    if num_samples == 0:
        return 0.0, 1.0
    p, z2n = num_successes / num_samples, z * z / num_samples
    centre = (p + z2n / 2) / (1 + z2n)
    half = z / (1 + z2n) * math.sqrt(p * (1 - p) / num_samples + z2n / (4 * num_samples))
    return max(0.0, centre - half), min(1.0, centre + half)


def bootstrap_interval(
    values: Sequence[float], *, seed: int = 0, num_resamples: int = 2000, coverage: float = 0.95
) -> tuple[float, float]:
    """Percentile interval of the mean of `values` (one a task), resampled with replacement. Deterministic in `seed`.

    Raises `ValueError` without values.
    """
    if len(values) == 0:
        raise ValueError("values=[]: allowed: at least one value")
    data, rng = np.asarray(values, dtype=np.float64), np.random.default_rng(seed)
    means = [data[rng.integers(0, len(data), len(data))].mean() for _ in range(num_resamples)]
    low, high = np.quantile(means, [(1 - coverage) / 2, (1 + coverage) / 2])
    return float(low), float(high)


def interval_over_tasks(values: Sequence[float]) -> Interval | None:
    """95 % interval of the mean of one value a task; None for fewer than two tasks, which say nothing about others.

    Values that are all 0 or 1 (one sample a task; pass@k of k samples) are independent successes: Wilson's interval,
    which keeps a width where all are equal. Other values: `bootstrap_interval`.
    """
    if len(values) < 2:
        return None
    if all(value in (0.0, 1.0) for value in values):
        low, high = wilson_interval(round(sum(values)), len(values))
        return Interval(low=low, high=high, method="wilson")
    low, high = bootstrap_interval(values)
    return Interval(low=low, high=high, method="bootstrap")

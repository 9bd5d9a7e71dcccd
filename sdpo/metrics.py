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
    """Return the unbiased probability that at least one of k samples is a success, from num_samples >= k of them.

    Raises `ValueError` if the counts do not fit together.
    """
    if not 0 <= num_successes <= num_samples or not 1 <= k <= num_samples:
        raise ValueError(
            f"num_samples={num_samples}, num_successes={num_successes}, k={k}: "
            f"allowed: 0 <= num_successes <= num_samples and 1 <= k <= num_samples"
        )
    return 1.0 - math.comb(num_samples - num_successes, k) / math.comb(num_samples, k)


def best_at_k(rewards: Sequence[float], k: int) -> float:
    """Return the mean of the highest reward of k samples over all choices of k of `rewards`; of 0 and 1, pass@k.

    Raises `ValueError` for a k that is not from 1 to the number of rewards.
    """
    num_samples = len(rewards)
    if not 1 <= k <= num_samples:
        raise ValueError(f"k={k}: allowed: from 1 to {num_samples}, the number of rewards")
    ways = [math.comb(rank, k - 1) for rank in range(num_samples)]  # choices in which the one of this rank is highest
    return math.fsum(w * r for w, r in zip(ways, sorted(rewards), strict=True)) / math.comb(num_samples, k)


def wilson_interval(num_successes: int, num_samples: int, z: float = 1.959964) -> tuple[float, float]:
    """Return Wilson's score interval of a proportion; the default z covers 95 %. Without samples (0, 1)."""
    if num_samples == 0:
        return 0.0, 1.0
    p, z2n = num_successes / num_samples, z * z / num_samples
    centre = (p + z2n / 2) / (1 + z2n)
    half = z / (1 + z2n) * math.sqrt(p * (1 - p) / num_samples + z2n / (4 * num_samples))
    return max(0.0, centre - half), min(1.0, centre + half)


def bootstrap_interval(
    values: Sequence[float], *, seed: int = 0, num_resamples: int = 2000, coverage: float = 0.95
) -> tuple[float, float]:
    """Return the percentile interval of the mean of `values` (one a task), resampled with replacement. Deterministic in
    `seed`.

    Raises `ValueError` without values.
    """
    if len(values) == 0:
        raise ValueError("values=[]: allowed: at least one value")
    data, rng = np.asarray(values, dtype=np.float64), np.random.default_rng(seed)
    means = [data[rng.integers(0, len(data), len(data))].mean() for _ in range(num_resamples)]
    low, high = np.quantile(means, [(1 - coverage) / 2, (1 + coverage) / 2])
    return float(low), float(high)


def interval_over_tasks(values: Sequence[float]) -> Interval | None:
    """Return the 95 % interval of the mean of one value a task; None for fewer than two tasks, which say nothing about
    others.

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

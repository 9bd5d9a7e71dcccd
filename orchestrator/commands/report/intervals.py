"""The mean over seeds and its 95 % interval."""

import math
import statistics
from collections.abc import Sequence

_T_975 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120,
    2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
"""0.975 quantiles of Student's t with 1 to 30 degrees of freedom."""
_Z = 1.959964
"""0.975 quantile of the normal distribution."""


def t_quantile(degrees: int) -> float:
    """Return the 0.975 quantile of Student's t; above 30 degrees by the Cornish-Fisher expansion (error below 1e-4)."""
    if degrees < 1:
        raise ValueError(f"degrees={degrees}: allowed: at least 1")
    if degrees <= len(_T_975):
        return _T_975[degrees - 1]
    return _Z + (_Z**3 + _Z) / (4 * degrees) + (5 * _Z**5 + 16 * _Z**3 + 3 * _Z) / (96 * degrees**2)


def mean_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the mean, and low and high of its 95 % t interval. Raises `ValueError` for fewer than two values."""
    if len(values) < 2:
        raise ValueError(f"{len(values)} values: allowed: at least two")
    mean = statistics.fmean(values)
    half = t_quantile(len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return mean, mean - half, mean + half

"""Group-relative advantages (the GRPO baseline as the paper runs it). numpy only."""

from collections.abc import Sequence

import numpy as np

from sdpo.types import Float32


def group_relative_advantages(rewards: Sequence[float]) -> Float32:
    """Reward minus the mean reward of the group, float32 [G]. Not divided by the standard deviation.

    Raises `ValueError` for an empty group or a reward that is not finite.
    """
    values = np.asarray(rewards, dtype=np.float64)
    if values.size == 0 or not np.isfinite(values).all():
        raise ValueError(f"rewards={list(rewards)}: a group needs at least one reward, all of them finite")
    advantages: Float32 = (values - values.mean()).astype(np.float32)
    return advantages

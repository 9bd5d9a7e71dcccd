"""Advantages: group-relative (GRPO), of a whole response (sequence-level SDPO), and their mix. numpy only.

Self-distillation seen as a policy gradient has the advantage A = log q - log p of a sampled token, with the teacher
q and the student p (paper, Proposition 2.1).
"""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from sdpo.types import Float32

Float = TypeVar("Float", bound=np.floating)


def group_relative_advantages(rewards: Sequence[float]) -> Float32:
    """Return the reward minus the mean reward of the group, float32 [G]. Not divided by the standard deviation.

    Raises `ValueError` for an empty group or a reward that is not finite.
    """
    values = np.asarray(rewards, dtype=np.float64)
    if values.size == 0 or not np.isfinite(values).all():
        raise ValueError(f"rewards={list(rewards)}: a group needs at least one reward, all of them finite")
    advantages: Float32 = (values - values.mean()).astype(np.float32)
    return advantages


def sequence_advantages(
    teacher_log_probs_T: NDArray[Float],
    old_log_probs_T: NDArray[Float],
    model_mask_T: NDArray[np.bool_],
    advantage_clip: float | None,
) -> NDArray[Float]:
    """Return the mean of log q - log pi_old over the tokens that the model wrote, on each token of the response: [T],
    dtype kept.

    Log-probs are of the sampled tokens; each token's difference is bounded by `advantage_clip` before the mean.
    Raises `ValueError` if the model wrote nothing.
    """
    if not model_mask_T.any():
        raise ValueError(f"model_mask_T of {len(model_mask_T)} tokens: allowed: at least one token by the model")
    gaps = (teacher_log_probs_T.astype(np.float64) - old_log_probs_T)[model_mask_T]
    if advantage_clip is not None:
        gaps = gaps.clip(-advantage_clip, advantage_clip)
    return np.full(len(model_mask_T), gaps.mean(), teacher_log_probs_T.dtype)

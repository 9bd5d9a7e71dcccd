"""The paper's formulas for teachers, advantages and means, written out for comparison."""

from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sdpo.types import Int32

Float = TypeVar("Float", bound=np.floating)


def geometric_mixture(initial: Tensor, current: Tensor, rate: float) -> Tensor:
    """Return log q [..., V] with q proportional to initial^(1 - rate) current^rate (paper, A.2).

    `initial` and `current` are log-probs or logits [..., V] over the whole vocabulary. Logits give the same result as
    log-probs: they differ by one constant per position, which the normalisation divides out.
    """
    return ((1.0 - rate) * initial + rate * current).log_softmax(-1)


def mixed_advantages(group_relative: float, distilled_T: NDArray[Float], grpo_weight: float) -> NDArray[Float]:
    """Return lambda A_GRPO + (1 - lambda) A_SDPO of each token of one response: [T], dtype kept (paper, eq. 3)."""
    mixed: NDArray[Float] = (grpo_weight * group_relative + (1.0 - grpo_weight) * distilled_T).astype(distilled_T.dtype)
    return mixed


def token_mean(loss: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sum of the losses where `mask` (same shape, bool or 0/1) is set, and the number of those tokens.

    Values outside the mask do not matter, not even NaN. With an empty mask the sum is 0 and attached to the graph.
    """
    inside = mask.bool()
    return torch.where(inside, loss, 0.0).sum(), inside.sum()


def support_overlap(left_ids_TK: Int32, right_ids_TK: Int32) -> float:
    """Return the mean over T positions of |left and right| / K, in 0 to 1; ids within a row are distinct.

    Raises `ValueError` unless both are [T, K] with at least one position and one id.
    """
    if left_ids_TK.shape != right_ids_TK.shape or left_ids_TK.ndim != 2 or left_ids_TK.size == 0:
        raise ValueError(f"supports of shapes {left_ids_TK.shape} and {right_ids_TK.shape}: allowed: one [T, K]")
    shared_T = [len(np.intersect1d(left, right)) for left, right in zip(left_ids_TK, right_ids_TK, strict=True)]
    return float(np.mean(shared_T) / left_ids_TK.shape[1])

"""How far two supports agree. numpy only."""

import numpy as np

from sdpo.types import Int32


def support_overlap(left_ids_TK: Int32, right_ids_TK: Int32) -> float:
    """Mean over T positions of |left and right| / K, in 0 to 1; ids within a row are distinct and in any order.

    Raises `ValueError` unless both are [T, K] with at least one position and one id.
    """
    if left_ids_TK.shape != right_ids_TK.shape or left_ids_TK.ndim != 2 or left_ids_TK.size == 0:
        raise ValueError(f"supports of shapes {left_ids_TK.shape} and {right_ids_TK.shape}: allowed: one [T, K]")
    shared_T = [len(np.intersect1d(left, right)) for left, right in zip(left_ids_TK, right_ids_TK, strict=True)]
    return float(np.mean(shared_T) / left_ids_TK.shape[1])

"""What makes torch repeat itself to the bit. Thread counts are set by the actors, deterministic or not."""

import os

import torch

from sdpo.config import RunConfig


def repeat_to_the_bit(config: RunConfig) -> None:
    """Allow, with `deterministic`, only algorithms that give the same bits every time; call it before CUDA is used.

    An operation that has no such algorithm raises `RuntimeError` from then on.
    """
    if not config.deterministic:
        return
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # read by cuBLAS when it starts
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]

"""The optimizer that all backends share, so that their steps are the same."""

from collections.abc import Iterable

import torch

from sdpo.config import OptimizerConfig


def make_adamw(parameters: Iterable[torch.Tensor], settings: OptimizerConfig) -> torch.optim.AdamW:
    """Return AdamW with decoupled weight decay on every parameter; no state yet."""
    return torch.optim.AdamW(
        list(parameters),
        lr=settings.learning_rate,
        betas=(settings.beta1, settings.beta2),
        eps=settings.eps,
        weight_decay=settings.weight_decay,
        fused=True,
    )


def clip_scale(grad_norm: float, max_grad_norm: float) -> float:
    """Return the factor of the gradients after which their norm is at most `max_grad_norm`."""
    return min(1.0, max_grad_norm / (grad_norm + 1e-6))

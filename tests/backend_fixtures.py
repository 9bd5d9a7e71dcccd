"""A look inside a sharding backend, for tests."""

import torch

from learner.backends.base import Backend
from learner.backends.fsdp2 import Fsdp2Backend


def full_gradients(backend: Backend) -> dict[str, torch.Tensor]:
    """Whole float32 gradients by trained parameter, summed over ranks and micro-batches, not clipped. A collective."""
    assert isinstance(backend, Fsdp2Backend)
    return {name: p.grad.full_tensor() for name, p in backend._trained.items() if p.grad is not None}

"""A look inside a sharding backend, for tests."""

from typing import Any

import torch

from learner.backends.base import Backend
from learner.backends.fsdp2 import Fsdp2Backend
from learner.backends.zero import ZeroBackend


def watch_gradients(backend: Backend) -> list[dict[str, torch.Tensor]]:
    """The list gets, at every step that the backend is asked for, the whole float32 gradients by trained parameter:
    summed over ranks and micro-batches, not clipped.
    """
    seen: list[dict[str, torch.Tensor]] = []
    if isinstance(backend, Fsdp2Backend):
        update = backend.update

        def observed(learning_rate: float) -> tuple[float, bool]:
            seen.append(full_gradients(backend))
            return update(learning_rate)

        backend.update = observed  # type: ignore[method-assign]
    else:
        assert isinstance(backend, ZeroBackend)
        _watch_zero(backend, seen)
    return seen


def full_gradients(backend: Backend) -> dict[str, torch.Tensor]:
    """What FSDP2's next update would see, whole, by trained parameter."""
    assert isinstance(backend, Fsdp2Backend)
    gradients = {name: p.grad for name, p in backend._trained.items()}
    return {name: g.full_tensor().clone() for name, g in gradients.items() if g is not None}  # type: ignore[attr-defined]


def _watch_zero(backend: ZeroBackend, seen: list[dict[str, torch.Tensor]]) -> None:
    """The engine has summed the gradients when it calls its optimizer's step."""
    from deepspeed.utils import safe_get_full_grad

    optimizer = backend._engine.optimizer
    step = optimizer.step

    def observed(*arguments: Any) -> None:
        seen.append({name: safe_get_full_grad(backend._all[name]).float().clone() for name in backend._places})
        step(*arguments)

    optimizer.step = observed

"""The teacher's weights as a float32 moving average of the masters, sharded like them (paper, A.2)."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch

from learner.backends.base import Backend


class WeightEma:
    """theta' <- (1 - rate) theta' + rate theta, started at theta_0. `tensors` are sharded and named as
    `Backend.masters`. With LoRA it is the average of the adapters' factors A and B, not of their product.
    """

    def __init__(self, backend: Backend, rate: float) -> None:
        self._backend, self._rate = backend, rate
        self.tensors: dict[str, torch.Tensor] = {name: master.clone() for name, master in backend.masters.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Move the average by one step. Local: no communication."""
        masters = self._backend.masters
        torch._foreach_lerp_(list(self.tensors.values()), [masters[name] for name in self.tensors], self._rate)


@contextmanager
def exchanged(
    left: Mapping[str, torch.Tensor], right: Mapping[str, torch.Tensor], refresh: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """Exchange, inside, the values of tensors of the same name, one at a time; call `refresh` after each change."""

    def exchange() -> None:
        with torch.no_grad():
            for name, tensor in left.items():
                before = tensor.clone()
                tensor.copy_(right[name])
                right[name].copy_(before)
            refresh()

    exchange()
    try:
        yield
    finally:
        exchange()

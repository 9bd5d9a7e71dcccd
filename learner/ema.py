"""The teacher's weights as a float32 moving average of the masters, sharded like them (paper, A.2)."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch

from learner.model import local_part


class WeightEma:
    """theta' <- (1 - rate) theta' + rate theta, started at theta_0. `tensors` maps names to sharded float32."""

    def __init__(self, masters: Iterable[tuple[str, torch.Tensor]], rate: float) -> None:
        self._rate = rate
        self._masters = dict(masters)
        self.tensors = {name: master.detach().clone() for name, master in self._masters.items()}

    @torch.no_grad()
    def update(self) -> None:
        """One step. Local: no communication."""
        torch._foreach_lerp_(self._local(self.tensors), self._local(self._masters), self._rate)

    @contextmanager
    def swapped_in(self) -> Iterator[None]:
        """Inside, the model computes with the average; afterwards the masters are back, to the bit."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        for held, master in zip(self._local(self.tensors), self._local(self._masters), strict=True):
            kept = master.clone()
            master.copy_(held)
            held.copy_(kept)

    @staticmethod
    def _local(tensors: dict[str, torch.Tensor]) -> list[torch.Tensor]:
        return [local_part(tensor.detach()) for tensor in tensors.values()]

"""What the training step, the publisher and the checkpoints need of a sharding backend."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Literal, Protocol

import torch

from learner.scoring import Scored, ScoreRequest

Part = Literal["masters", "ema"]
"""What a checkpoint holds: the policy, and the teacher's moving average."""


class Stored(Protocol):
    """A checkpoint's trained parameters, by the learner's names and in its order."""

    @property
    def names(self) -> list[str]: ...

    def flat(self, name: str) -> torch.Tensor:
        """Return the parameter, float32 [number of elements]. Raises `CheckpointError`, one line."""
        ...


class Backend(Protocol):
    """One rank's share of the policy. Every method is collective: call it on all ranks, in the same order.

    Trained parameters ("masters") are float32 and sharded; compute is in the run's dtype. `masters` maps the trained
    parameters' names to this rank's local float32 shards: without LoRA names of the Hugging Face checkpoint, a tied
    head once. A backend that keeps its masters in flat buffers may name those buffers instead. The tensors
    share memory with what the optimizer updates; `learner.ema.WeightEma` averages them elementwise.
    """

    optimizer_step: int
    """Optimizer steps taken, over all incarnations."""

    @property
    def masters(self) -> Mapping[str, torch.Tensor]: ...

    def forward(self, request: ScoreRequest) -> Scored:
        """Run `ScoringModel` on this rank's micro-batch, with gradients if torch has them enabled."""
        ...

    def backward(self, loss: torch.Tensor) -> None:
        """Add the gradients of this rank's scalar `loss`. What `update` sees is the SUM over ranks and over calls since
        the last `update`: no average over ranks, no division by the number of micro-batches.
        """
        ...

    def update(self, learning_rate: float) -> tuple[float, bool]:
        """Return (global gradient norm before clipping, whether it stepped). Clips to
        `learner.optimizer.max_grad_norm`, takes one AdamW step, clears the gradients. A gradient that is not finite is
        cleared without a step.
        """
        ...

    def discard(self) -> None:
        """Clear the gradients without a step."""
        ...

    def swapped_in(self, tensors: Mapping[str, torch.Tensor]) -> AbstractContextManager[None]:
        """Exchange masters and `tensors`: inside, the model computes with `tensors` (as `masters`) and `tensors` are
        not to be read; afterwards both are as before, to the bit.
        """
        ...

    def full_tensors(
        self, dtype: torch.dtype, tensors: Mapping[str, torch.Tensor] | None = None
    ) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield (name in the Hugging Face checkpoint, whole tensor in `dtype`) one at a time, on every rank, adapters
        merged; a tied head once. `tensors` (as `masters`) instead of the masters, for the teacher's average.
        """
        ...

    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the names and whole shapes of what `full_tensors` yields, in order. Local: no communication."""
        ...

    def save(self, folder: str, average: Mapping[str, torch.Tensor] | None) -> None:
        """Write this rank's shards of masters, AdamW, `average` (as `masters`), counters and random state."""
        ...

    def load(self, folder: str, average: Mapping[str, torch.Tensor] | None) -> None:
        """Restore in place what `save` wrote. Raises `CheckpointError`, one line."""
        ...

    def close(self) -> None:
        """Let go of the process group, before it is destroyed. Local."""
        ...

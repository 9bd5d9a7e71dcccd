"""Where DeepSpeed's ZeRO optimizers keep a rank's share of each parameter (written for deepspeed 0.19.8).

Each rank has flat float32 tensors that AdamW updates; a parameter's elements on this rank are one run in one of them.
"""

from typing import Any, NamedTuple, Protocol

import torch
import torch.distributed as dist


class Place(NamedTuple):
    """Elements [start, start + size) of the flattened parameter are flats[flat][offset : offset + size]."""

    flat: int
    offset: int
    start: int
    size: int


class Partitions(Protocol):
    """What `ZeroBackend` needs to know of a stage."""

    @property
    def flats(self) -> list[torch.Tensor]:
        """This rank's float32 masters."""
        ...

    @property
    def adamw_state(self) -> list[dict[str, torch.Tensor]]:
        """AdamW's state of each of `flats`."""
        ...

    def place(self, parameter: torch.Tensor) -> Place:
        """Where a trained parameter is."""
        ...

    def frozen(self, parameter: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """A parameter that is not trained, whole. A collective."""
        ...

    def refresh(self) -> None:
        """Compute from now on with what `flats` hold. A collective."""
        ...

    def clear_gradients(self) -> None:
        """Forget what backward passes have added since the last step."""
        ...


class Stages1And2:
    """Weights are whole on every rank; masters and AdamW (stage 2: gradients too) are split in equal runs."""

    def __init__(self, optimizer: Any) -> None:
        self._optimizer = optimizer
        self.flats: list[torch.Tensor] = self._flats()
        self.adamw_state = _new_state(optimizer.optimizer, self.flats)

    def place(self, parameter: torch.Tensor) -> Place:
        held: Any = parameter._hp_mapping  # type: ignore[attr-defined]
        if held is None:
            return Place(0, 0, 0, 0)
        inside, outside = held.hp_fragment_address, held.lp_fragment_address
        return Place(held.param_group_index, inside.start, outside.start, inside.numel)

    def frozen(self, parameter: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        return parameter.detach().to(dtype)

    def refresh(self) -> None:
        self._optimizer.update_lp_params()

    def clear_gradients(self) -> None:
        optimizer = self._optimizer
        optimizer.zero_grad(set_to_none=True)
        optimizer.clear_backward_seen_flag()
        for group in range(len(self.flats)):
            optimizer.averaged_gradients[group] = optimizer.all_grad_tensors[group] = None

    def _flats(self) -> list[torch.Tensor]:
        flats: list[torch.Tensor] = self._optimizer.single_partition_of_fp32_groups
        return flats


class Stage1Bf16(Stages1And2):
    """DeepSpeed has another optimizer for stage 1 in bfloat16 with gradients added in float32."""

    def clear_gradients(self) -> None:
        self._optimizer.zero_grad()

    def _flats(self) -> list[torch.Tensor]:
        flats: list[torch.Tensor] = self._optimizer.fp32_groups_flat_partition
        return flats


class Stage3:
    """Weights are split too, each by itself, and gathered for a module's forward and backward."""

    def __init__(self, optimizer: Any) -> None:
        self._optimizer = optimizer
        self.flats: list[torch.Tensor] = optimizer.fp32_partitioned_groups_flat
        self.adamw_state = _new_state(optimizer.optimizer, self.flats)

    def place(self, parameter: torch.Tensor) -> Place:
        flat, offset, size = self._optimizer.grad_position[self._optimizer.get_param_id(parameter)]
        numel = int(parameter.ds_numel)  # type: ignore[attr-defined]
        start = min(dist.get_rank() * size, numel)
        return Place(flat, offset, start, min(size, numel - start))

    def frozen(self, parameter: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        import deepspeed

        with deepspeed.zero.GatheredParameters([parameter]):
            return parameter.detach().to(dtype, copy=True)

    def refresh(self) -> None:
        optimizer = self._optimizer
        optimizer._partition_all_parameters()
        for flat in range(len(self.flats)):
            optimizer._reassign_or_swap_out_partitioned_parameters(flat)
        if optimizer.persistent_parameters:
            optimizer.persistent_parameters[0].all_gather(optimizer.persistent_parameters)

    def clear_gradients(self) -> None:
        # The first backward pass after `zero_grad` overwrites the gradients.
        self._optimizer.zero_grad(set_to_none=True)
        self._optimizer.averaged_gradients = {}


def partitions_of(optimizer: Any) -> Partitions:
    """For an engine's optimizer."""
    match type(optimizer).__name__:
        case "DeepSpeedZeroOptimizer_Stage3":
            return Stage3(optimizer)
        case "BF16_Optimizer":
            return Stage1Bf16(optimizer)
    return Stages1And2(optimizer)


def _new_state(adamw: torch.optim.Optimizer, flats: list[torch.Tensor]) -> list[dict[str, torch.Tensor]]:
    """Zero moments, as AdamW makes them at its first step."""
    for flat in flats:
        adamw.state[flat] = {
            "step": torch.zeros((), device=flat.device),
            "exp_avg": torch.zeros_like(flat),
            "exp_avg_sq": torch.zeros_like(flat),
        }
    return [adamw.state[flat] for flat in flats]

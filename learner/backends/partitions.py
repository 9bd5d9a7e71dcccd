"""Where DeepSpeed's ZeRO optimizers keep a rank's share of each parameter (written for deepspeed 0.19.8).

Each rank has flat float32 tensors that AdamW updates; a parameter's elements on this rank are one run in one of them.
"""

from typing import Any, NamedTuple

import torch
import torch.distributed as dist


class Shard(NamedTuple):
    """Elements [start, start + size) of the flattened parameter are flats[flat][offset : offset + size]."""

    flat: int
    offset: int
    start: int
    size: int


class Partitions:
    """Stages 1 and 2: weights are whole on every rank; masters and AdamW (stage 2: gradients too) are split in equal
    runs of elements.
    """

    flats_attribute = "single_partition_of_fp32_groups"

    def __init__(self, optimizer: Any) -> None:
        self._optimizer = optimizer
        self.flats: list[torch.Tensor] = getattr(optimizer, self.flats_attribute)
        """This rank's float32 masters."""
        self.adamw_state = _new_state(optimizer.optimizer, self.flats)
        """AdamW's state of each of `flats`."""

    def shard_of(self, parameter: torch.Tensor) -> Shard:
        """Return where this rank's elements of a trained parameter are."""
        held: Any = parameter._hp_mapping  # type: ignore[attr-defined]
        if held is None:
            return Shard(0, 0, 0, 0)
        inside, outside = held.hp_fragment_address, held.lp_fragment_address
        return Shard(held.param_group_index, inside.start, outside.start, inside.numel)

    def frozen(self, parameter: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """Return a parameter that is not trained, whole. A collective."""
        return parameter.detach().to(dtype)

    def refresh(self) -> None:
        """Compute from now on with what `flats` hold. A collective."""
        self._optimizer.update_lp_params()

    def clear_gradients(self) -> None:
        """Clear what backward passes have added since the last step."""
        optimizer = self._optimizer
        optimizer.zero_grad(set_to_none=True)
        optimizer.clear_backward_seen_flag()
        for group in range(len(self.flats)):
            optimizer.averaged_gradients[group] = optimizer.all_grad_tensors[group] = None


class Stage1Bf16(Partitions):
    """DeepSpeed's other optimizer for stage 1, in bfloat16 with gradients added in float32."""

    flats_attribute = "fp32_groups_flat_partition"

    def clear_gradients(self) -> None:
        self._optimizer.zero_grad()


class Stage3(Partitions):
    """Weights are split too, each by itself, and gathered for a module's forward and backward."""

    flats_attribute = "fp32_partitioned_groups_flat"

    def shard_of(self, parameter: torch.Tensor) -> Shard:
        flat, offset, size = self._optimizer.grad_position[self._optimizer.get_param_id(parameter)]
        numel = int(parameter.ds_numel)  # type: ignore[attr-defined]
        start = min(dist.get_rank() * size, numel)
        return Shard(flat, offset, start, min(size, numel - start))

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
    """Return the partitions of an engine's optimizer."""
    match type(optimizer).__name__:
        case "DeepSpeedZeroOptimizer_Stage3":
            return Stage3(optimizer)
        case "BF16_Optimizer":
            return Stage1Bf16(optimizer)
    return Partitions(optimizer)


def _new_state(adamw: torch.optim.Optimizer, flats: list[torch.Tensor]) -> list[dict[str, torch.Tensor]]:
    """Give AdamW zero moments, as it makes them at its first step."""
    for flat in flats:
        adamw.state[flat] = {
            "step": torch.zeros((), device=flat.device),
            "exp_avg": torch.zeros_like(flat),
            "exp_avg_sq": torch.zeros_like(flat),
        }
    return [adamw.state[flat] for flat in flats]

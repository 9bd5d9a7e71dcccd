"""DeepSpeed's ZeRO stages 1, 2 and 3. deepspeed is imported here only, and only when this backend is made.

The engine takes a step when the learner calls for it (`managed_gradient_accumulation` off), whatever the number of
micro-batches. Masters are float32, whatever the compute dtype; gradients are summed and reduced in float32.
"""

import logging
import math
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from transformers import PreTrainedModel

from learner.backends.adamw import make_adamw
from learner.backends.base import Backend, Part, Stored
from learner.backends.partitions import Shard, partitions_of
from learner.backends.zero_checkpoint import StoredRuns, load_state, save_state
from learner.ema import exchanged
from learner.lora import merged, merged_shapes
from learner.model import torch_dtype
from learner.scoring import Scored, ScoreRequest, ScoringModel
from sdpo.config import RunConfig


class ZeroBackend:
    """`learner.backends.base.Backend`. Its masters are this rank's runs of elements of each trained parameter (an empty
    one where it holds none).
    """

    def __init__(self, hf_model: PreTrainedModel, config: RunConfig, device: torch.device) -> None:
        """Shard `hf_model`, which is on CPU, trained parameters in float32, frozen ones in any dtype. A collective."""
        self.optimizer_step = 0
        self._name, self._lora = config.learner.backend, config.learner.lora
        stage = int(self._name.removeprefix("zero"))
        model = ScoringModel(hf_model, config.learner.logits_chunk_tokens).to(device)
        self._all = dict(hf_model.named_parameters())
        initial = {name: p.detach() for name, p in self._all.items() if p.requires_grad}
        self._shapes = {name: tuple(p.shape) for name, p in self._all.items()}
        self._world_size = dist.get_world_size() if stage == 3 else 1
        self._engine = _engine(model, config, stage, device)
        self._partitions = partitions_of(self._engine.optimizer)
        self._shards = {name: self._partitions.shard_of(self._all[name]) for name in initial}
        self._initialise(initial)

    @property
    def masters(self) -> dict[str, torch.Tensor]:
        return {name: self._part(self._partitions.flats, shard) for name, shard in self._shards.items()}

    def forward(self, request: ScoreRequest) -> Scored:
        scored: Scored = self._engine(request)
        return scored

    def backward(self, loss: torch.Tensor) -> None:
        # Stages 1 and 2 are configured to sum over ranks; stage 3 can only average.
        self._engine.backward(loss * self._world_size, scale_wrt_gas=False)

    def update(self, learning_rate: float) -> tuple[float, bool]:
        for group in self._engine.optimizer.param_groups:
            group["lr"] = learning_rate
        self._engine.step()
        grad_norm = float(self._engine.get_global_grad_norm())
        stepped = bool(self._engine.was_step_applied())
        self.optimizer_step += stepped
        return grad_norm, stepped

    def discard(self) -> None:
        self._partitions.clear_gradients()

    def swapped_in(self, tensors: Mapping[str, torch.Tensor]) -> AbstractContextManager[None]:
        return exchanged(self.masters, tensors, self._partitions.refresh)

    def full_tensors(
        self, dtype: torch.dtype, tensors: Mapping[str, torch.Tensor] | None = None
    ) -> Iterator[tuple[str, torch.Tensor]]:
        held = self.masters if tensors is None else tensors

        def whole(name: str, dtype: torch.dtype) -> torch.Tensor:
            shard = self._shards.get(name)
            if shard is None:
                return self._partitions.frozen(self._all[name], dtype)
            return _whole(held[name], shard, self._shapes[name], dtype)

        yield from merged(self._all, whole, dtype, self._lora)

    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        return merged_shapes(self._shapes)

    def save(self, folder: str, average: Mapping[str, torch.Tensor] | None) -> None:
        save_state(folder, self._name, self._state(average), self.optimizer_step)

    def load(self, folder: str, average: Mapping[str, torch.Tensor] | None) -> None:
        """Refuses what another number of ranks saved."""
        self.optimizer_step = load_state(folder, self._name, self._state(average))
        self._partitions.refresh()

    def close(self) -> None:
        """Let go of the process group, before it is destroyed."""
        from deepspeed.utils import groups

        self._engine.destroy()
        groups._release_process_group_references(None)

    def _state(self, average: Mapping[str, torch.Tensor] | None) -> dict[str, dict[str, torch.Tensor]]:
        """Return the tensors by reference: loading writes into these tensors."""
        adamw = self._partitions.adamw_state
        state = {"masters": self.masters}
        for key in ("exp_avg", "exp_avg_sq"):
            moments = [part[key] for part in adamw]
            state[key] = {name: self._part(moments, shard) for name, shard in self._shards.items()}
        state["step"] = {str(index): part["step"] for index, part in enumerate(adamw)}
        return state if average is None else state | {"ema": dict(average)}

    @torch.no_grad()
    def _initialise(self, initial: dict[str, torch.Tensor]) -> None:
        """Write the masters anew: the engine made them of weights that it had rounded to the compute dtype."""
        for name, master in self.masters.items():
            shard = self._shards[name]
            master.copy_(initial[name].flatten()[shard.start : shard.start + shard.size])
        self._partitions.refresh()

    @staticmethod
    def _part(flats: list[torch.Tensor], shard: Shard) -> torch.Tensor:
        return flats[shard.flat].detach()[shard.offset : shard.offset + shard.size]


def _engine(model: ScoringModel, config: RunConfig, stage: int, device: torch.device) -> Any:
    """Return DeepSpeed's engine in the process group that exists; one device a process."""
    os.environ["DS_ACCELERATOR"] = device.type
    os.environ["LOCAL_RANK"] = "0"
    import deepspeed

    deepspeed.utils.logger.setLevel(logging.WARNING)
    # deepspeed calls collectives by names that torch renames.
    warnings.filterwarnings("ignore", message="`torch.distributed", category=FutureWarning)
    # An all-reduce of DeepSpeed's own for CPUs, compiled at its first use: minutes, and shared memory that outlives us.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = make_adamw(trained, config.learner.optimizer)
    engine, *_ = deepspeed.initialize(
        model=model, optimizer=optimizer, config=_settings(model, config, stage), dist_init_required=False
    )
    return engine


def _settings(model: ScoringModel, config: RunConfig, stage: int) -> dict[str, Any]:
    """Return DeepSpeed's settings. Under stage 3 vectors stay whole on every rank and matrices are sharded."""
    dtype = torch_dtype(config.model.dtype)
    zero: dict[str, Any] = {"stage": stage, "overlap_comm": False}
    if stage == 3:
        zero["stage3_param_persistence_threshold"] = 4 * int(model.hf_model.config.hidden_size)
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "managed_gradient_accumulation": False,
        "gradient_allreduce_op": "mean" if stage == 3 else "sum",
        "gradient_clipping": config.learner.optimizer.max_grad_norm,
        "communication_data_type": "fp32",
        "data_types": {"grad_accum_dtype": "fp32"},
        "bf16": {"enabled": dtype == torch.bfloat16, "check_grad_overflow": True},
        "fp16": {"enabled": dtype == torch.float16},
        "zero_optimization": zero,
    }


def _whole(part: torch.Tensor, shard: Shard, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """Return the whole tensor: every element is one rank's own and zero on all others, so that the sum is exact in any
    dtype. A collective.
    """
    whole = torch.zeros(math.prod(shape), dtype=dtype, device=part.device)
    whole[shard.start : shard.start + shard.size] = part.to(dtype)
    dist.all_reduce(whole)
    return whole.view(shape)


def make(hf_model: PreTrainedModel, config: RunConfig, device: torch.device) -> Backend:
    """Return the backend around `hf_model`. A collective."""
    return ZeroBackend(hf_model, config, device)


def open_stored(folder: Path, part: Part, ranks: int) -> Stored:
    """Open a checkpoint that `ranks` ranks saved."""
    return StoredRuns(folder, part, ranks)

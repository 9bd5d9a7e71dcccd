"""PyTorch's FSDP2: every decoder layer and the root sharded by rows, float32 masters, AdamW on the shards."""

import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from learner.backends.adamw import clip_scale, make_adamw
from learner.backends.base import Backend, Part, Stored
from learner.checkpoint import FORMAT, readable, verify, writable, write_digests
from learner.ema import exchanged
from learner.lora import merged, merged_shapes
from learner.model import decoder_layers, torch_dtype
from learner.scoring import Scored, ScoreRequest, ScoringModel
from sdpo.config import RunConfig
from sdpo.errors import CheckpointError

GROUP_BYTES = 2**29
"""Weights that are read from a stored checkpoint at one time, in bytes of float32; one larger tensor is read alone."""


class Fsdp2Backend:
    """`learner.backends.base.Backend`. Its masters are the rows that this rank holds of each trained parameter."""

    def __init__(self, hf_model: PreTrainedModel, config: RunConfig, device: torch.device) -> None:
        """Shard `hf_model`, which is on CPU, trained parameters in float32, frozen ones in any dtype. A collective."""
        self.optimizer_step = 0
        self._name, self._max_grad_norm = config.learner.backend, config.learner.optimizer.max_grad_norm
        self._lora = config.learner.lora
        self._model = _shard(hf_model, config, device)
        self._all = dict(self._model.hf_model.named_parameters())
        self._trained = {name: p for name, p in self._all.items() if p.requires_grad}
        self._optimizer = make_adamw(self._trained.values(), config.learner.optimizer)
        for parameter in self._trained.values():
            self._optimizer.state[parameter] = {
                "step": torch.zeros((), device=device),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
            }

    @property
    def masters(self) -> dict[str, torch.Tensor]:
        return {name: _local(parameter.detach()) for name, parameter in self._trained.items()}

    def forward(self, request: ScoreRequest) -> Scored:
        scored: Scored = self._model(request)
        return scored

    def backward(self, loss: torch.Tensor) -> None:
        torch.autograd.backward(loss)

    def update(self, learning_rate: float) -> tuple[float, bool]:
        gradients = [p.grad for p in self._trained.values() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        grad_norm = float(norm.full_tensor() if isinstance(norm, DTensor) else norm)
        stepped = math.isfinite(grad_norm)
        if stepped:
            torch._foreach_mul_([_local(g) for g in gradients], clip_scale(grad_norm, self._max_grad_norm))
            for group in self._optimizer.param_groups:
                group["lr"] = learning_rate
            self._optimizer.step()
            self.optimizer_step += 1
        self.discard()
        return grad_norm, stepped

    def discard(self) -> None:
        self._optimizer.zero_grad()

    def swapped_in(self, tensors: Mapping[str, torch.Tensor]) -> AbstractContextManager[None]:
        return exchanged(self.masters, tensors)

    def full_tensors(
        self, dtype: torch.dtype, tensors: Mapping[str, torch.Tensor] | None = None
    ) -> Iterator[tuple[str, torch.Tensor]]:
        held = {} if tensors is None else self._sharded(tensors)

        def whole(name: str, dtype: torch.dtype) -> torch.Tensor:
            tensor = held[name] if name in held else self._all[name]
            return _whole(tensor.detach().to(dtype))

        yield from merged(self._all, whole, dtype, self._lora)

    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        return merged_shapes({name: tuple(parameter.shape) for name, parameter in self._all.items()})

    def save(self, folder: str, average: Mapping[str, torch.Tensor] | None) -> None:
        with writable(folder, CheckpointException):
            save(self._state(average), checkpoint_id=folder)
            rank = dist.get_rank()
            parts = [*Path(folder).glob(f"__{rank}_*.distcp"), *([Path(folder) / ".metadata"] if rank == 0 else [])]
            write_digests(folder, self._name, parts)

    def load(self, folder: str, average: Mapping[str, torch.Tensor] | None) -> None:
        """Restore also what another number of ranks saved."""
        verify(folder, self._name)
        state, rng_key = self._state(average), f"rng.{dist.get_rank()}"
        with readable(folder, CheckpointException):
            held = FileSystemReader(folder).read_metadata().state_dict_metadata
            absent = sorted(key for key in _keys(state) if key not in held and key != rng_key)
            if absent:
                raise CheckpointError(f"checkpoint {folder}: {absent[0]} is not in it; it is of another run")
            state = {key: value for key, value in state.items() if key != "rng" or rng_key in held}
            load(state, checkpoint_id=folder)
        self.optimizer_step = int(state["counters"]["optimizer_step"])
        if "rng" in state:
            torch.set_rng_state(state["rng"][str(dist.get_rank())])

    def close(self) -> None:
        """Do nothing: nothing outlives the process group."""

    def _state(self, average: Mapping[str, torch.Tensor] | None) -> dict[str, Any]:
        """Return the tensors by reference: loading writes into them."""
        state: dict[str, Any] = {
            "masters": {name: master.detach() for name, master in self._trained.items()},
            "optimizer": {name: dict(self._optimizer.state[master]) for name, master in self._trained.items()},
            "counters": {"optimizer_step": self.optimizer_step, "format": FORMAT},
            "rng": {str(dist.get_rank()): torch.get_rng_state()},
        }
        return state if average is None else state | {"ema": self._sharded(average)}

    def _sharded(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return local tensors as the DTensors whose shards they are, sharing memory."""
        return {name: _like(self._trained[name], local) for name, local in tensors.items()}


def _shard(hf_model: PreTrainedModel, config: RunConfig, device: torch.device) -> ScoringModel:
    """Shard the model. Everything is resharded after its forward: a forward without backward must not leave gathered
    weights behind, which the next forward would use instead of the updated ones. Gradients are summed over ranks.
    """
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    policy = MixedPrecisionPolicy(param_dtype=torch_dtype(config.model.dtype), reduce_dtype=torch.float32)
    model = ScoringModel(hf_model, config.learner.logits_chunk_tokens)
    for layer in decoder_layers(hf_model):
        fully_shard(layer, mesh=mesh, mp_policy=policy, reshard_after_forward=True)
    fully_shard(model, mesh=mesh, mp_policy=policy, reshard_after_forward=True)
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)
    return model.to(device)


def _local(tensor: torch.Tensor) -> torch.Tensor:
    assert isinstance(tensor, DTensor)
    local: torch.Tensor = tensor.to_local()
    return local


def _whole(tensor: torch.Tensor) -> torch.Tensor:
    """Return all shards of a DTensor together. A collective."""
    assert isinstance(tensor, DTensor)
    full: torch.Tensor = tensor.full_tensor()
    return full.contiguous()


def _like(parameter: torch.Tensor, local: torch.Tensor) -> torch.Tensor:
    assert isinstance(parameter, DTensor)
    sharded: torch.Tensor = DTensor.from_local(
        local,
        parameter.device_mesh,
        parameter.placements,
        run_check=False,
        shape=parameter.shape,
        stride=parameter.stride(),
    )
    return sharded


def _keys(state: dict[str, Any], prefix: str = "") -> set[str]:
    keys: set[str] = set()
    for key, value in state.items():
        keys |= _keys(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key}
    return keys


class StoredShards:
    """The tensors of torch's distributed checkpoint, found by name. Holds `GROUP_BYTES` of weights at most."""

    def __init__(self, folder: Path, part: Part) -> None:
        self._folder, self._part = folder, part
        with readable(str(folder), CheckpointException):
            held = FileSystemReader(folder).read_metadata().state_dict_metadata
        self._entries = {
            key.removeprefix(f"{part}."): entry
            for key, entry in held.items()
            if key.startswith(f"{part}.") and isinstance(entry, TensorStorageMetadata)
        }
        self._read: dict[str, torch.Tensor] = {}

    @cached_property
    def names(self) -> list[str]:
        return list(self._entries)

    def flat(self, name: str) -> torch.Tensor:
        if name not in self._read:
            self._read = self._group(name)
        return self._read.pop(name).flatten()

    def _group(self, first: str) -> dict[str, torch.Tensor]:
        """Read `first` and those after it that fit `GROUP_BYTES` together: reading costs by the call."""
        state, size = dict[str, torch.Tensor](), 0
        for name in self.names[self.names.index(first) :]:
            entry = self._entries[name]
            size += 4 * math.prod(entry.size)
            if state and size > GROUP_BYTES:
                break
            state[f"{self._part}.{name}"] = torch.empty(entry.size, dtype=entry.properties.dtype)
        with readable(str(self._folder), CheckpointException), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="torch.distributed is disabled")
            load(dict(state), storage_reader=FileSystemReader(self._folder), no_dist=True)
        return {key.removeprefix(f"{self._part}."): tensor for key, tensor in state.items()}


def make(hf_model: PreTrainedModel, config: RunConfig, device: torch.device) -> Backend:
    """Return the backend around `hf_model`. A collective."""
    return Fsdp2Backend(hf_model, config, device)


def open_stored(folder: Path, part: Part, ranks: int) -> Stored:
    """Open a checkpoint, whatever number of ranks saved it."""
    return StoredShards(folder, part)

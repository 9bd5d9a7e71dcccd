"""Loading a Hugging Face causal LM, and sharding it with FSDP2: float32 masters, compute in the config's dtype."""

import json
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.utils.logging import disable_progress_bar

from learner.scoring import ScoringModel
from sdpo.errors import InfrastructureError, ModelError

LOGIT_TRANSFORMS = ("final_logit_softcapping", "logits_scaling", "logit_scale")
"""Config keys of architectures that change logits after the head; the scoring code does not apply them."""


def load_causal_lm(folder: str, dtype: torch.dtype) -> PreTrainedModel:
    """Load `folder` on CPU in `dtype`, in eval mode (no dropout). Raises `ModelError`, one line."""
    names = checkpoint_names(folder)
    disable_progress_bar()
    try:
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, attn_implementation="sdpa", local_files_only=True
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"model.path={folder}: cannot be loaded: {_one_line(error)}") from error
    for key in LOGIT_TRANSFORMS:
        if getattr(model.config, key, None) not in (None, 1, 1.0):
            raise ModelError(f"model.path={folder}: {key} is set; allowed: models whose logits are the head's output")
    absent = [name for name, _ in model.named_parameters() if name not in names]
    if absent:
        raise ModelError(f"model.path={folder}: parameter {absent[0]} is not in its safetensors files")
    return model.eval()


def checkpoint_names(folder: str) -> set[str]:
    """Tensor names in the folder's safetensors files. Raises `ModelError` if the folder is not a model."""
    root = Path(folder)
    if not (root / "config.json").is_file():
        raise ModelError(f"model.path={folder}: no config.json there; allowed: a Hugging Face causal LM folder")
    index = root / "model.safetensors.index.json"
    try:
        files = sorted(set(json.loads(index.read_text())["weight_map"].values())) if index.is_file() else None
    except (ValueError, KeyError) as error:
        raise ModelError(f"model.path={folder}: {index.name} is not a weight index: {_one_line(error)}") from error
    names: set[str] = set()
    for file in files or ["model.safetensors"]:
        try:
            with safe_open(root / file, framework="pt") as opened:
                names.update(opened.keys())
        except (OSError, SafetensorError) as error:
            raise ModelError(f"model.path={folder}: {file} is missing or damaged: {_one_line(error)}") from error
    return names


def decoder_layers(model: PreTrainedModel) -> nn.ModuleList:
    """The decoder blocks. Raises `ModelError` for architectures that keep them elsewhere."""
    layers = getattr(model.base_model, "layers", None)
    if not isinstance(layers, nn.ModuleList):
        raise ModelError(f"{type(model).__name__}: no list of decoder layers; allowed: Llama-like causal LMs")
    return layers


def shard(model: PreTrainedModel, mesh: DeviceMesh, dtype: torch.dtype, logits_chunk_tokens: int) -> ScoringModel:
    """FSDP2 on every decoder layer and on the root. Parameters stay float32; compute is in `dtype`.

    Everything is resharded after its forward: a forward without backward must not leave gathered weights behind,
    which the next forward would use instead of the updated ones.
    """
    policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32)
    scoring = ScoringModel(model, logits_chunk_tokens)
    for layer in decoder_layers(model):
        fully_shard(layer, mesh=mesh, mp_policy=policy, reshard_after_forward=True)
    fully_shard(scoring, mesh=mesh, mp_policy=policy, reshard_after_forward=True)
    return scoring


def named_masters(scoring: ScoringModel) -> Iterator[tuple[str, torch.Tensor]]:
    """(name in the Hugging Face checkpoint, sharded float32 parameter); a tied head appears once."""
    yield from scoring.hf_model.named_parameters()


def local_part(tensor: torch.Tensor) -> torch.Tensor:
    """This rank's shard of a DTensor, sharing memory with it."""
    assert isinstance(tensor, DTensor)
    local: torch.Tensor = tensor.to_local()
    return local


def full_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """All shards of a DTensor together. A collective."""
    assert isinstance(tensor, DTensor)
    full: torch.Tensor = tensor.full_tensor()
    return full


def pick_device(num_gpus: float) -> torch.device:
    """The actor's GPU if it asked Ray for one, else the CPU. Raises `InfrastructureError` if none is visible."""
    if num_gpus == 0:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise InfrastructureError(f"this actor asked for {num_gpus:g} GPU, but torch sees none")
    return torch.device("cuda", torch.cuda.current_device())


def torch_dtype(name: str) -> torch.dtype:
    """`torch_dtype("bfloat16") is torch.bfloat16`"""
    dtype: torch.dtype = getattr(torch, name)
    return dtype


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]

"""Loading a Hugging Face causal LM, and the policy to train."""

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.utils.logging import disable_progress_bar

from learner.attention import ATTENTION, require_packable
from learner.lora import add_adapters
from learner.recompute import enable_gradient_checkpointing
from sdpo.config import RunConfig
from sdpo.errors import InfrastructureError, ModelError
from sdpo.show import show_error

LOGIT_TRANSFORMS = ("final_logit_softcapping", "logits_scaling", "logit_scale")
"""Config keys of architectures that change logits after the head; the scoring code does not apply them."""


def load_causal_lm(folder: str, dtype: torch.dtype) -> PreTrainedModel:
    """Load `folder` on CPU in `dtype`, in eval mode (no dropout). Raises `ModelError`, one line."""
    names = checkpoint_names(folder)
    disable_progress_bar()
    try:
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, attn_implementation=ATTENTION, local_files_only=True
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"model.path={folder}: cannot be loaded: {show_error(error)}") from error
    require_packable(model)
    for key in LOGIT_TRANSFORMS:
        if getattr(model.config, key, None) not in (None, 1, 1.0):
            raise ModelError(f"model.path={folder}: {key} is set; allowed: models whose logits are the head's output")
    absent = [name for name, _ in model.named_parameters() if name not in names]
    if absent:
        raise ModelError(f"model.path={folder}: parameter {absent[0]} is not in its safetensors files")
    return model.eval()


def load_policy(config: RunConfig) -> PreTrainedModel:
    """Load `model.path` on CPU as it is trained: float32, or with LoRA frozen in the compute dtype with float32
    adapters. Raises `ModelError`, one line.
    """
    model = load_causal_lm(config.model.path, torch.float32)
    if config.learner.gradient_checkpointing:
        enable_gradient_checkpointing(decoder_layers(model))
    if config.learner.lora is not None:
        add_adapters(model, config.learner.lora, torch_dtype(config.model.dtype), config.seed)
    return model


def checkpoint_names(folder: str) -> set[str]:
    """Return the tensor names in the folder's safetensors files. Raises `ModelError` if the folder is not a model."""
    names: set[str] = set()
    for file in weight_files(folder):
        try:
            with safe_open(Path(folder) / file, framework="pt") as opened:
                names.update(opened.keys())
        except (OSError, SafetensorError) as error:
            raise ModelError(f"model.path={folder}: {file} is missing or damaged: {show_error(error)}") from error
    return names


def weight_files(folder: str) -> list[str]:
    """Return the names of the folder's safetensors files. Raises `ModelError` if the folder is not a model."""
    root = Path(folder)
    if not (root / "config.json").is_file():
        raise ModelError(f"model.path={folder}: no config.json there; allowed: a Hugging Face causal LM folder")
    index = root / "model.safetensors.index.json"
    try:
        files = sorted(set(json.loads(index.read_text())["weight_map"].values())) if index.is_file() else None
    except (ValueError, KeyError) as error:
        raise ModelError(f"model.path={folder}: {index.name} is not a weight index: {show_error(error)}") from error
    return files or ["model.safetensors"]


def decoder_layers(model: PreTrainedModel) -> nn.ModuleList:
    """Return the decoder blocks. Raises `ModelError` for architectures that keep them elsewhere."""
    layers = getattr(model.base_model, "layers", None)
    if not isinstance(layers, nn.ModuleList):
        raise ModelError(f"{type(model).__name__}: no list of decoder layers; allowed: Llama-like causal LMs")
    return layers


def pick_device(num_gpus: float) -> torch.device:
    """Return the actor's GPU if it asked Ray for one, else the CPU. Raises `InfrastructureError` if none is visible."""
    if num_gpus == 0:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise InfrastructureError(f"this actor asked for {num_gpus:g} GPU, but torch sees none")
    return torch.device("cuda", torch.cuda.current_device())


def torch_dtype(name: str) -> torch.dtype:
    """Return torch's dtype of that name, for example "bfloat16"."""
    dtype: torch.dtype = getattr(torch, name)
    return dtype

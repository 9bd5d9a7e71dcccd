"""`sdpo export`: a checkpoint of a run as a Hugging Face folder, by one process, without Ray and without a GPU."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from learner.export import copy_small_files, in_place, write_model
from learner.model import torch_dtype
from learner.stored import ModelFolder, Stored, adapter_tensors, open_stored, whole_tensors
from orchestrator.checkpoints import Kept, best_first
from orchestrator.model_card import CARD, Exported, hub_id, model_card
from orchestrator.run_view import RunView
from sdpo.config import LoraConfig
from sdpo.errors import ConfigError, InfrastructureError
from sdpo.storage_cache import borrowed, fetched


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportRequest:
    """Which weights of a run, and in which form. Neither `step` nor `best`: the newest checkpoint.

    `base`: where the model lies that the run trained, None for the config's model.path. `dtype`: None for the run's
    own; an adapter stays float32.
    """

    out: Path
    step: int | None = None
    best: bool = False
    teacher: bool = False
    adapter: bool = False
    dtype: str | None = None
    base: Path | None = None


def export(view: RunView, request: ExportRequest) -> Kept:
    """Write `request.out`, whole or not at all; returns the checkpoint that it was made of.

    Raises `ConfigError`, `CheckpointError` or `ModelError`, one line, for what cannot be exported, and
    `InfrastructureError` where the disk does not take it.
    """
    out, lora = request.out, view.config.learner.lora
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"OUT={out}: exists and is not empty; allowed: a folder that does not exist, or an empty one")
    if request.adapter and lora is None:
        raise ConfigError(f"--adapter: {view.place} trained all weights; allowed: runs with learner.lora")
    kept = choose(view, request)
    base = _base(view, request)
    dtype = request.dtype or ("float32" if request.adapter else view.config.model.dtype)
    card = _card(view, request, kept.steps, base, dtype)
    with borrowed(kept.path) as folder:
        stored = open_stored(folder, "ema" if request.teacher else "masters")
        try:
            if request.adapter and lora is not None:
                _write_adapter(out, base, stored, lora, torch_dtype(dtype), card)
            else:
                tensors = whole_tensors(stored, base, lora, view.config.model.dtype, torch_dtype(dtype))
                write_model(out, base.path, tensors, torch_dtype(dtype), {CARD: card})
        except (OSError, SafetensorError) as error:
            raise InfrastructureError(f"OUT={out}: cannot be written: {error}") from error
    return kept


def choose(view: RunView, request: ExportRequest) -> Kept:
    """The checkpoint that is asked for. Raises `ConfigError` if there is none such."""
    kept = view.checkpoints
    if not kept:
        hint = f"; the policy at its end is in {view.model_place}" if view.model_place else ""
        raise ConfigError(f"{view.place}: holds no checkpoint{hint}")
    if request.best:
        measured = best_first(kept)
        if not measured:
            raise ConfigError(
                f"--best: held-out pass@1 was measured at no checkpoint that {view.place} kept; allowed: "
                f"{_steps(kept)} (checkpoint.keep_best=1 keeps the best one)"
            )
        return measured[0]
    if request.step is None:
        return kept[-1]
    for one in kept:
        if one.steps == request.step:
            return one
    raise ConfigError(f"--step={request.step}: {view.place} keeps no such checkpoint; allowed: {_steps(kept)}")


def _base(view: RunView, request: ExportRequest) -> ModelFolder:
    """Its config and tokenizer are copied; with adapters its weights are read."""
    path = request.base or fetched(view.config.model.path)
    if not (path / "config.json").is_file():
        key = "--base" if request.base else "model.path"
        raise ConfigError(f"{key}={path}: no model there; say with --base FOLDER where the run's model.path lies now")
    return ModelFolder(path)


def _steps(kept: Sequence[Kept]) -> str:
    return "--step " + ", ".join(str(one.steps) for one in kept)


def _card(view: RunView, request: ExportRequest, steps: int, base: ModelFolder, dtype: str) -> str:
    exported = Exported(
        steps=steps,
        base=base.path,
        dtype=dtype,
        num_parameters=base.num_parameters,
        is_teacher=request.teacher,
        is_adapter=request.adapter,
    )
    return model_card(view, exported)


def _write_adapter(
    out: Path, base: ModelFolder, stored: Stored, lora: LoraConfig, dtype: torch.dtype, card: str
) -> None:
    """The form of peft: adapter_config.json and adapter_model.safetensors, the base model's tokenizer beside them."""
    settings: dict[str, Any] = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": hub_id(base.path) or base.path.absolute().name,
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": list(lora.targets),
        "inference_mode": True,
    }
    with in_place(out) as beside:
        copy_small_files(base.path, beside)
        (beside / "config.json").unlink()
        (beside / CARD).write_text(card, encoding="utf-8")
        (beside / "adapter_config.json").write_text(json.dumps(settings, indent=2) + "\n")
        tensors = dict(adapter_tensors(stored, base, lora, dtype))
        save_file(tensors, beside / "adapter_model.safetensors", metadata={"format": "pt"})

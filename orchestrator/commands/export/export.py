"""Export a checkpoint of a run as a Hugging Face folder, in one process, without Ray and without a GPU."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from learner.backends.base import Stored
from learner.export import copy_small_files, in_place, write_model
from learner.model import torch_dtype
from learner.stored import ModelFolder, adapter_tensors, open_stored, whole_tensors
from orchestrator.run_dir.checkpoints import Checkpoint, best_first
from orchestrator.run_dir.model_card import CARD, Exported, hub_id, model_card
from orchestrator.run_dir.run_view import RunView
from sdpo.config import LoraConfig
from sdpo.errors import ConfigError, InfrastructureError
from sdpo.storage_cache import borrowed, fetched


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportRequest:
    """Which weights of a run to export, and in which form. With neither `step` nor `best`: the newest checkpoint.

    `base`: folder of the model that the run trained, None for the config's model.path. `dtype`: None for that of the
    run, or float32 for an adapter.
    """

    out: Path
    step: int | None = None
    best: bool = False
    teacher: bool = False
    adapter: bool = False
    dtype: str | None = None
    base: Path | None = None


def export(view: RunView, request: ExportRequest) -> Checkpoint:
    """Write `request.out`, whole or not at all; returns the exported checkpoint.

    Raises `ConfigError`, `CheckpointError` or `ModelError` for what cannot be exported, and `InfrastructureError` if
    the folder cannot be written.
    """
    out, lora = request.out, view.config.learner.lora
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"OUT={out}: exists and is not empty; allowed: a folder that does not exist, or an empty one")
    if request.adapter and lora is None:
        raise ConfigError(f"--adapter: {view.location} trained all weights; allowed: runs with learner.lora")
    checkpoint, base = choose(view, request), _base(view, request)
    dtype = request.dtype or ("float32" if request.adapter else view.config.model.dtype)
    exported = Exported(
        steps=checkpoint.steps,
        base=base.path,
        dtype=dtype,
        num_parameters=base.num_parameters,
        is_teacher=request.teacher,
        is_adapter=request.adapter,
    )
    card = model_card(view, exported)
    with borrowed(checkpoint.location) as folder:
        stored = open_stored(folder, "ema" if request.teacher else "masters")
        try:
            if request.adapter and lora is not None:
                _write_adapter(out, base, stored, lora, torch_dtype(dtype), card)
            else:
                tensors = whole_tensors(stored, base, lora, view.config.model.dtype, torch_dtype(dtype))
                write_model(out, base.path, tensors, torch_dtype(dtype), {CARD: card})
        except (OSError, SafetensorError) as error:
            raise InfrastructureError(f"OUT={out}: cannot be written: {error}") from error
    return checkpoint


def choose(view: RunView, request: ExportRequest) -> Checkpoint:
    """Return the requested checkpoint. Raises `ConfigError` if the run has no such checkpoint."""
    checkpoints = view.checkpoints
    allowed = "allowed: --step " + ", ".join(str(checkpoint.steps) for checkpoint in checkpoints)
    if not checkpoints:
        hint = f"; the policy at its end is in {view.model_location}" if view.model_location else ""
        raise ConfigError(f"{view.location}: holds no checkpoint{hint}")
    if request.best:
        best_by = view.config.checkpoint.best_by
        measured, score = best_first(checkpoints, best_by), "pass@1" if best_by == "pass_rate" else "reward"
        if not measured:
            raise ConfigError(
                f"--best: held-out {score} was measured at no checkpoint that {view.location} kept; {allowed} "
                f"(checkpoint.keep_best=1 keeps the best one)"
            )
        return measured[0]
    if request.step is None:
        return checkpoints[-1]
    for checkpoint in checkpoints:
        if checkpoint.steps == request.step:
            return checkpoint
    raise ConfigError(f"--step={request.step}: {view.location} keeps no such checkpoint; {allowed}")


def _base(view: RunView, request: ExportRequest) -> ModelFolder:
    """Return the model that the run started from: the source of config, tokenizer and, for adapters, weights."""
    path = request.base or fetched(view.config.model.path)
    if not (path / "config.json").is_file():
        key = "--base" if request.base else "model.path"
        raise ConfigError(
            f"{key}={path}: no model there; allowed: --base FOLDER with the model of the run's model.path"
        )
    return ModelFolder(path)


def _write_adapter(
    out: Path, base: ModelFolder, stored: Stored, lora: LoraConfig, dtype: torch.dtype, card: str
) -> None:
    """Write the files of peft, adapter_config.json and adapter_model.safetensors, and the base model's tokenizer."""
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

"""The weights in a checkpoint, read by one process that is no rank: no process group, no GPU, no model in memory.

Whatever backend wrote it with however many ranks: `open_stored` of the backend's module finds the tensors.
"""

import json
import math
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from learner.backends import backend_module
from learner.backends.base import Part, Stored
from learner.checkpoint import verify_alone
from learner.lora import BASE, FACTOR_A, FACTOR_B, merged
from learner.model import torch_dtype, weight_files
from sdpo.backends import BACKENDS
from sdpo.config import LoraConfig
from sdpo.errors import CheckpointError, ModelError
from sdpo.show import show_error


def open_stored(folder: Path, part: Part) -> Stored:
    """Check every file's SHA-256, then open it. Raises `CheckpointError`, one line."""
    ranks, backend = verify_alone(str(folder))
    if backend not in BACKENDS:
        allowed = ", ".join(BACKENDS)
        raise CheckpointError(f"checkpoint {folder}: written by learner.backend={backend}; allowed: {allowed}")
    stored: Stored = backend_module(backend).open_stored(folder, part, ranks)
    if not stored.names:
        what = "teacher's average; allowed: checkpoints of runs with an ema teacher" if part == "ema" else "weights"
        raise CheckpointError(f"checkpoint {folder}: holds no {what}")
    return stored


class ModelFolder:
    """A Hugging Face folder's safetensors, a tensor at a time."""

    def __init__(self, folder: Path) -> None:
        """Reads names and shapes. Raises `ModelError`, one line."""
        self.path, self.shapes, self._files = folder, dict[str, tuple[int, ...]](), dict[str, Path]()
        for file in weight_files(str(folder)):
            try:
                with safe_open(folder / file, framework="pt") as opened:
                    for name in opened.keys():  # noqa: SIM118
                        self.shapes[name] = tuple(opened.get_slice(name).get_shape())
                        self._files[name] = folder / file
            except (OSError, SafetensorError) as error:
                raise ModelError(f"model.path={folder}: {file} is missing or damaged: {show_error(error)}") from error
        if json.loads((folder / "config.json").read_text()).get("tie_word_embeddings"):
            self.shapes.pop("lm_head.weight", None)

    @property
    def num_parameters(self) -> int:
        """Return the elements of all tensors; a tied head is counted once."""
        return sum(map(math.prod, self.shapes.values()))

    def tensor(self, name: str) -> torch.Tensor:
        """Return one tensor, in the dtype of the file."""
        with safe_open(self._files[name], framework="pt") as opened:
            tensor: torch.Tensor = opened.get_tensor(name)
            return tensor


def whole_tensors(
    stored: Stored, base: ModelFolder, lora: LoraConfig | None, trained_in: str, dtype: torch.dtype
) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield what `Backend.full_tensors` yields, to the bit: (name in the Hugging Face checkpoint, tensor in `dtype`),
    adapters merged.

    `trained_in` is the run's model.dtype: a model with adapters was frozen in it. Raises `CheckpointError`, one line,
    if `base` is another model than the one that was trained.
    """

    def whole(name: str, dtype: torch.dtype) -> torch.Tensor:
        if name in trained:
            return _shaped(stored, name, _shape_of(name, base, lora)).to(dtype)
        frozen = base.tensor(name.replace(BASE, "."))
        return frozen.float().to(torch_dtype(trained_in)).to(dtype)

    trained = set(stored.names)
    names = stored.names if lora is None else _adapted(base, trained)
    absent = sorted(trained.difference(names))
    if absent:
        raise CheckpointError(f"{base.path}: has no layer for {absent[0]}; allowed: the model that the run trained")
    yield from merged(names, whole, dtype, lora)


def adapter_tensors(
    stored: Stored, base: ModelFolder, lora: LoraConfig, dtype: torch.dtype
) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield (name in a peft adapter, factor in `dtype`): A [R, I], B [O, R]. Raises `CheckpointError` as
    `whole_tensors`.
    """
    for name in stored.names:
        outside = name.replace(FACTOR_A, ".lora_A.").replace(FACTOR_B, ".lora_B.")
        yield f"base_model.model.{outside}", _shaped(stored, name, _shape_of(name, base, lora)).to(dtype)


def _adapted(base: ModelFolder, trained: set[str]) -> list[str]:
    """Return the parameters of the adapted model, by the learner's names."""
    names: list[str] = []
    for name in base.shapes:
        layer, _, leaf = name.rpartition(".")
        factors = [f"{layer}{factor}{leaf}" for factor in (FACTOR_A, FACTOR_B)]
        names += [f"{layer}{BASE}{leaf}", *factors] if factors[0] in trained else [name]
    return names


def _shape_of(name: str, base: ModelFolder, lora: LoraConfig | None) -> tuple[int, ...]:
    outside = name.replace(FACTOR_A, ".").replace(FACTOR_B, ".")
    shape = base.shapes.get(outside)
    if shape is None:
        raise CheckpointError(f"{base.path}: has no {outside}; allowed: the model that the run trained")
    if lora is None or name == outside:
        return shape
    return (lora.rank, shape[1]) if FACTOR_A in name else (shape[0], lora.rank)


def _shaped(stored: Stored, name: str, shape: tuple[int, ...]) -> torch.Tensor:
    flat = stored.flat(name)
    if flat.numel() != math.prod(shape):
        raise CheckpointError(f"checkpoint: {name} has {flat.numel()} elements, the model's {math.prod(shape)}")
    return flat.view(shape)

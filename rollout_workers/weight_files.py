"""The weight files of a model folder: which belong to it, and whether each is whole. No weights are read."""

import json
from pathlib import Path
from typing import Any

from sdpo.errors import ModelError

INDEX = "model.safetensors.index.json"


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files of a model folder, sorted: those that its index names, all of them without one."""
    index = folder / INDEX
    if not index.is_file():
        return sorted(folder.glob("*.safetensors"))
    return [folder / name for name in sorted(set(_weight_map(index).values()))]


def check_weight_files(folder: Path) -> None:
    """Raise `ModelError`, one line, for weights that are missing, cut off or damaged, or that the index misnames."""
    files = weight_files(folder)
    if not files:
        raise ModelError(f"model.path={folder}: no *.safetensors weights")
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise ModelError(f"model.path={folder}: {len(missing)} weight files are missing, first {missing[0]}")
    tensors = {file.name: _tensors(folder, file) for file in files}
    index = folder / INDEX
    for tensor, name in _weight_map(index).items() if index.is_file() else ():
        if tensor not in tensors[name]:
            raise ModelError(f"model.path={folder}: {INDEX} names {tensor} in {name}, which does not hold it")


def _tensors(folder: Path, file: Path) -> frozenset[str]:
    """Return the names of a file's tensors; its header and its length have to agree."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="numpy") as opened:
            return frozenset(opened.keys())
    except (OSError, SafetensorError, ValueError) as error:
        cause = str(error).partition("\n")[0]
        raise ModelError(
            f"model.path={folder}: {file.name} is damaged or cut off ({cause}); allowed: a whole safetensors file"
        ) from None


def _weight_map(index: Path) -> dict[str, str]:
    """Return the file of each tensor. Raises `ModelError` for an index of another form."""
    try:
        found: Any = json.loads(index.read_text())
    except (OSError, ValueError) as error:
        raise ModelError(f"model.path={index.parent}: {INDEX} is not readable: {error}") from None
    weight_map = found.get("weight_map") if isinstance(found, dict) else None
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise ModelError(f"model.path={index.parent}: {INDEX}: allowed: a mapping `weight_map` from tensors to files")
    return weight_map

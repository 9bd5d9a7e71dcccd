"""The policy as a Hugging Face folder that transformers and vLLM load: safetensors, config and tokenizer."""

import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import save_file

SHARD_BYTES = 2**30
WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".index.json")


def export_model(
    folder: str,
    source: str,
    tensors: Iterable[tuple[str, torch.Tensor]],
    dtype: torch.dtype,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write whole `tensors`, which are in `dtype`, to `folder`; config and tokenizer files are copied from `source`. A
    collective; rank 0 writes.

    Holds at most `shard_bytes` of weights (or one larger tensor) at a time.
    """
    writes = dist.get_rank() == 0
    if writes:
        _copy_small_files(Path(source), Path(folder), dtype)
    writer = _ShardWriter(Path(folder), shard_bytes)
    for name, tensor in tensors:
        if writes:
            writer.add(name, tensor.cpu())
    if writes:
        writer.close()
    dist.barrier()


class _ShardWriter:
    """Fills files of bounded size; their final names are known when the last one is written."""

    def __init__(self, folder: Path, shard_bytes: int) -> None:
        self._folder, self._limit = folder, shard_bytes
        self._held: dict[str, torch.Tensor] = {}
        self._held_bytes = self._total_bytes = 0
        self._names: list[list[str]] = []

    def add(self, name: str, tensor: torch.Tensor) -> None:
        if self._held and self._held_bytes + tensor.nbytes > self._limit:
            self._flush()
        self._held[name] = tensor
        self._held_bytes += tensor.nbytes
        self._total_bytes += tensor.nbytes

    def close(self) -> None:
        self._flush()
        count = len(self._names)
        if count == 1:
            self._part(0).rename(self._folder / "model.safetensors")
            return
        weight_map: dict[str, str] = {}
        for number, names in enumerate(self._names):
            final = f"model-{number + 1:05d}-of-{count:05d}.safetensors"
            self._part(number).rename(self._folder / final)
            weight_map |= dict.fromkeys(names, final)
        index = {"metadata": {"total_size": self._total_bytes}, "weight_map": weight_map}
        (self._folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))

    def _flush(self) -> None:
        path = self._part(len(self._names))
        save_file(self._held, path, metadata={"format": "pt"})
        with path.open("rb") as file:
            os.fsync(file.fileno())
        self._names.append(list(self._held))
        self._held, self._held_bytes = {}, 0

    def _part(self, number: int) -> Path:
        return self._folder / f"part-{number}.tmp"


def _copy_small_files(source: Path, folder: Path, dtype: torch.dtype) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.iterdir()):
        if path.is_file() and not path.name.startswith(".") and not path.name.endswith(WEIGHT_SUFFIXES):
            shutil.copyfile(path, folder / path.name)
    config = json.loads((source / "config.json").read_text())
    config.pop("torch_dtype", None)
    config["dtype"] = str(dtype).removeprefix("torch.")
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")

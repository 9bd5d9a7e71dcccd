"""The policy as a Hugging Face folder that transformers and vLLM load: safetensors, config, tokenizer, card.

A folder is written beside its place and renamed: it is there whole or not at all.
"""

import json
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import save_file

from sdpo.files import sync_path

SHARD_BYTES = 2**30
WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".index.json")
Tensors = Iterable[tuple[str, torch.Tensor]]


def export_model(
    folder: str,
    source: str,
    tensors: Tensors,
    dtype: torch.dtype,
    texts: Mapping[str, str] | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Call `write_model` where `tensors` is a collective: every rank goes through them, rank 0 writes in place of what
    was in `folder`.
    """
    if dist.get_rank() == 0:
        write_model(Path(folder), Path(source), tensors, dtype, texts or {}, shard_bytes)
    else:
        for _ in tensors:
            pass
    dist.barrier()


def write_model(
    folder: Path,
    source: Path,
    tensors: Tensors,
    dtype: torch.dtype,
    texts: Mapping[str, str],
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write whole `tensors`, which are in `dtype`, to `folder`; config and tokenizer files are copied from `source`,
    then `texts` (by file name) are written. What was in `folder` before is gone afterwards.

    Holds at most `shard_bytes` of weights (or one larger tensor) at a time.
    """
    with in_place(folder) as beside:
        copy_small_files(source, beside)
        _name_dtype(beside / "config.json", dtype)
        for name, text in texts.items():
            (beside / name).write_text(text, encoding="utf-8")
        writer = _ShardWriter(beside, shard_bytes)
        for name, tensor in tensors:
            writer.add(name, tensor.cpu())
        writer.close()


@contextmanager
def in_place(folder: Path) -> Iterator[Path]:
    """Yield an empty folder beside `folder`; it takes its place, flushed to the disk, when the context ends well."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside, before = (folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}") for _ in range(2))
    beside.mkdir()
    try:
        yield beside
        for path in [*beside.rglob("*"), beside]:
            if path.is_file():
                path.chmod(beside.stat().st_mode & 0o666)  # safetensors makes files for their owner only
            sync_path(path)
        if folder.exists():
            folder.rename(before)
        beside.rename(folder)
        sync_path(folder.parent)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
        shutil.rmtree(before, ignore_errors=True)


def copy_small_files(source: Path, folder: Path) -> None:
    """Copy everything of a model folder that is no weight: config, tokenizer, chat template, generation config,
    license.
    """
    for path in sorted(source.iterdir()):
        if path.is_file() and not path.name.startswith(".") and not path.name.endswith(WEIGHT_SUFFIXES):
            shutil.copyfile(path, folder / path.name)
    templates = source / "additional_chat_templates"
    if templates.is_dir():
        shutil.copytree(templates, folder / templates.name)


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
        save_file(self._held, self._part(len(self._names)), metadata={"format": "pt"})
        self._names.append(list(self._held))
        self._held, self._held_bytes = {}, 0

    def _part(self, number: int) -> Path:
        return self._folder / f"part-{number}.tmp"


def _name_dtype(file: Path, dtype: torch.dtype) -> None:
    config = json.loads(file.read_text())
    config.pop("torch_dtype", None)
    config["dtype"] = str(dtype).removeprefix("torch.")
    file.write_text(json.dumps(config, indent=2) + "\n")

"""A rank's checkpoint file under ZeRO: its own shards by name. It is of use to the same number of ranks only."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from learner.backends.base import Part
from learner.checkpoint import FORMAT, readable, synced, verify, writable, write_digests
from sdpo.errors import CheckpointError

State = Mapping[str, Mapping[str, torch.Tensor]]


def save_state(folder: str, backend: str, state: State, optimizer_step: int) -> None:
    """Write `zero-rank*.pt`, on every rank. Raises `CheckpointError`, one line."""
    path = _path(folder)
    content: dict[str, Any] = {
        "state": {key: dict(tensors) for key, tensors in state.items()},
        "format": FORMAT,
        "optimizer_step": optimizer_step,
        "rng": torch.get_rng_state(),
    }
    with writable(folder):
        with synced(path) as file:
            torch.save(content, file)
        write_digests(folder, backend, [path])


def load_state(folder: str, backend: str, state: State) -> int:
    """Copy the rank's file into `state`'s tensors; returns the optimizer step. Raises `CheckpointError`, one line."""
    ranks = verify(folder, backend)
    if ranks != dist.get_world_size():
        raise CheckpointError(
            f"checkpoint {folder}: {ranks} learner ranks saved it, placement.learner.ranks={dist.get_world_size()}; "
            f"allowed with learner.backend={backend}: {ranks}"
        )
    with readable(folder):
        content = torch.load(_path(folder), map_location="cpu", weights_only=True)
        for key, tensors in state.items():
            held = content["state"].get(key, {})
            for name, tensor in tensors.items():
                if name not in held or held[name].shape != tensor.shape:
                    raise CheckpointError(f"checkpoint {folder}: {key}.{name} is not in it; it is of another run")
                tensor.copy_(held[name])
        torch.set_rng_state(content["rng"])
        return int(content["optimizer_step"])


def _path(folder: str) -> Path:
    return Path(folder) / f"zero-rank{dist.get_rank()}.pt"


class StoredRuns:
    """The files of all ranks, mapped into memory: a parameter is the ranks' runs of elements one after the other."""

    def __init__(self, folder: Path, part: Part, ranks: int) -> None:
        self._parts: list[Mapping[str, torch.Tensor]] = []
        with readable(str(folder)):
            for rank in range(ranks):
                path = str(folder / f"zero-rank{rank}.pt")
                content: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
                self._parts.append(content["state"].get(part, {}))

    @property
    def names(self) -> list[str]:
        return list(self._parts[0])

    def flat(self, name: str) -> torch.Tensor:
        return torch.cat([part[name] for part in self._parts])

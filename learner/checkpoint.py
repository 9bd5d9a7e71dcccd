"""Sharded checkpoints for resuming: masters, AdamW, the teacher's average, counters, random state.

Every rank writes its shards (fsynced); `digests-rank*.json` holds the SHA-256 of what a rank wrote, so that a
damaged file is refused before anything is loaded.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from learner.ema import WeightEma
from learner.model import named_masters
from learner.step import Trainer
from sdpo.errors import CheckpointError

FORMAT = 1


def save_checkpoint(folder: str, trainer: Trainer, ema: WeightEma | None) -> None:
    """Write into an existing or new folder. A collective."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    save(_state(trainer, ema), checkpoint_id=folder)
    rank = dist.get_rank()
    digests = {path.name: _digest(path) for path in _written_by(Path(folder), rank)}
    with (Path(folder) / f"digests-rank{rank}.json").open("w") as file:
        json.dump({"world_size": dist.get_world_size(), "files": digests}, file)
        file.flush()
        os.fsync(file.fileno())
    dist.barrier()


def load_checkpoint(folder: str, trainer: Trainer, ema: WeightEma | None) -> None:
    """Restore in place, also with another number of ranks. Raises `CheckpointError`, one line. A collective."""
    _verify(Path(folder))
    state = _state(trainer, ema)
    try:
        held = FileSystemReader(folder).read_metadata().state_dict_metadata
        absent = sorted(key for key in _keys(state) if key not in held and not key.startswith("rng."))
        if absent:
            raise CheckpointError(f"checkpoint {folder}: {absent[0]} is not in it; it is of another run")
        state = {key: value for key, value in state.items() if key != "rng" or _rng_key() in held}
        load(state, checkpoint_id=folder)
    except (CheckpointException, OSError, ValueError, KeyError, EOFError, RuntimeError) as error:
        raise CheckpointError(f"checkpoint {folder}: cannot be read: {' '.join(str(error).split())[:300]}") from error
    trainer.optimizer_step = int(state["counters"]["optimizer_step"])
    if "rng" in state:
        torch.set_rng_state(state["rng"][str(dist.get_rank())])


def _state(trainer: Trainer, ema: WeightEma | None) -> dict[str, Any]:
    """Tensors by reference: loading writes into them."""
    masters = dict(named_masters(trainer.model))
    state: dict[str, Any] = {
        "masters": {name: master.detach() for name, master in masters.items()},
        "optimizer": {name: dict(trainer.optimizer.state[master]) for name, master in masters.items()},
        "counters": {"optimizer_step": trainer.optimizer_step, "format": FORMAT},
        "rng": {str(dist.get_rank()): torch.get_rng_state()},
    }
    return state if ema is None else state | {"ema": dict(ema.tensors)}


def _rng_key() -> str:
    return f"rng.{dist.get_rank()}"


def _keys(state: dict[str, Any], prefix: str = "") -> set[str]:
    keys: set[str] = set()
    for key, value in state.items():
        keys |= _keys(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key}
    return keys


def _written_by(folder: Path, rank: int) -> list[Path]:
    return sorted([*folder.glob(f"__{rank}_*.distcp"), *([folder / ".metadata"] if rank == 0 else [])])


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _verify(folder: Path) -> None:
    """Every rank checks its share of the files."""
    try:
        world_size = json.loads((folder / "digests-rank0.json").read_text())["world_size"]
        digests: dict[str, str] = {}
        for rank in range(world_size):
            digests |= json.loads((folder / f"digests-rank{rank}.json").read_text())["files"]
        for name in sorted(digests)[dist.get_rank() :: dist.get_world_size()]:
            if _digest(folder / name) != digests[name]:
                raise CheckpointError(f"checkpoint {folder}: {name} is damaged (its SHA-256 is not the recorded one)")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"checkpoint {folder}: a part is missing or damaged: {error}") from error

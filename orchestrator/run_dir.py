"""The run directory: resolved config, metrics, samples, checkpoints. Everything in it appears whole or not at all.

config.yaml            the resolved config
metrics.jsonl          one object a step; `tensorboard/` holds the same
alarms.jsonl           one object for every alarm that began; missing if there was none
samples/step-N.jsonl   what became of single attempts
checkpoints/step-N/    learner state after N steps, state.json last; renamed into place when complete
stacks/                what every thread was doing when a deadline passed
model/                 the policy at the end, in Hugging Face format
"""

import fcntl
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from pydantic import TypeAdapter

from sdpo.config import RunConfig
from sdpo.config.load import dump_run_config, load_run_config
from sdpo.errors import CheckpointError, ConfigError

FREE_TO_CHANGE = (
    "steps",
    "deadlines",
    "checkpoint",
    "record",
    "evaluation",
    "health",
    "dir",
    "max_learner_restarts",
    "max_worker_restarts",
)
_STATE = TypeAdapter(dict[str, int])


class RunDir:
    """One run's directory, locked while it is open."""

    def __init__(self, config: RunConfig) -> None:
        self.path = Path(config.dir) / config.name
        self._config = config
        self._lock: IO[str] | None = None

    def check(self) -> None:
        """Raises `ConfigError` if the directory holds another run, or one that must not be resumed. Writes nothing."""
        known = self.path / "config.yaml"
        if not known.exists():
            return
        if self._config.checkpoint.resume == "never":
            raise ConfigError(
                f"checkpoint.resume=never: {self.path} holds a run; allowed: another `name`, or resume=auto"
            )
        before, now = load_run_config(known, []).model_dump(), self._config.model_dump()
        for key, value in now.items():
            if key not in FREE_TO_CHANGE and before[key] != value:
                changed = _first_difference(key, before[key], value)
                raise ConfigError(f"{changed}: {self.path} holds a run with another value; allowed: another `name`")

    def open(self) -> None:
        """Create and lock the directory. Raises `ConfigError` if a live run holds it."""
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = (self.path / "lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"name={self._config.name}: {self.path} is in use by a live run") from None
        write_atomically(self.path / "config.yaml", dump_run_config(self._config))

    def close(self) -> None:
        """Give the lock back."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def next_incarnation(self) -> int:
        """Count a start of this run; 1 at the first."""
        file = self.path / "incarnation"
        incarnation = int(file.read_text()) + 1 if file.exists() else 1
        write_atomically(file, str(incarnation))
        return incarnation

    def newest_checkpoint(self) -> tuple[Path, int] | None:
        """The newest complete checkpoint and the number of steps in it. Raises `CheckpointError` if it is corrupt."""
        found = sorted(self.path.glob("checkpoints/step-*[0-9]"))
        if not found:
            return None
        file = found[-1] / "state.json"
        try:
            return found[-1], _STATE.validate_json(file.read_bytes())["steps"]
        except (OSError, ValueError, KeyError) as error:
            reason = str(error).splitlines()[0]
            raise CheckpointError(
                f"{file}: not a complete checkpoint ({reason}); delete {found[-1]} to use an older one"
            ) from None

    def checkpoint_folder(self) -> Path:
        """An empty folder to write a checkpoint into; `commit_checkpoint` puts it in place."""
        folder = self.path / "checkpoints" / "unfinished"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder

    def commit_checkpoint(self, folder: Path, steps: int) -> Path:
        """Rename a complete checkpoint into place and delete the oldest ones."""
        write_atomically(folder / "state.json", json.dumps({"steps": steps}))
        place = folder.parent / f"step-{steps:06d}"
        shutil.rmtree(place, ignore_errors=True)
        os.replace(folder, place)
        for old in sorted(folder.parent.glob("step-*"))[: -self._config.checkpoint.keep]:
            shutil.rmtree(old)
        return place


def write_atomically(file: Path, text: str) -> None:
    """Write beside the file, then rename: a reader sees the old text or the new one."""
    beside = file.with_name(f".{file.name}.unfinished")
    beside.write_text(text, encoding="utf-8")
    os.replace(beside, file)


def _first_difference(key: str, before: Any, now: Any) -> str:
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for inner in now:
            if before.get(inner) != now[inner]:
                return _first_difference(f"{key}.{inner}", before.get(inner), now[inner])
    return f"{key}={now} (was {before})"

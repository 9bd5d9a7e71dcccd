"""The run directory: resolved config, metrics, samples, checkpoints. Everything in it appears whole or not at all.

`sdpo.run_layout` names its files. Where `dir` is a URI, the run works in a local copy that has neither checkpoints nor
model; the complete files of the copy are uploaded after every step (see `orchestrator.run_dir.remote_dir`).
"""

import asyncio
import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.run_dir.checkpoints import Checkpoints
from orchestrator.run_dir.metrics_log import parse_metrics
from orchestrator.run_dir.remote_dir import WorkingCopy
from orchestrator.run_dir.resume_rules import refused_change
from orchestrator.run_dir.run_lock import RunLock
from sdpo import run_layout as layout
from sdpo.config import RunConfig
from sdpo.config.load import dump_run_config, load_run_config
from sdpo.errors import ConfigError, SdpoError
from sdpo.files import write_atomically
from sdpo.prompt_date import PROMPT_DATE
from sdpo.storage import Store, join_location
from sdpo.storage_cache import borrowed

LOOK_EVERY_S = 1.0
"""Time between two checks of the run lock while the run is alive."""


class RunDir:
    """The directory of one run, locked while it is open.

    `location`: the path or URI that the config gives it; `path`: the folder of this machine that the run works in.
    """

    def __init__(self, config: RunConfig) -> None:
        """Raises `StorageError` for a URI that cannot be used. Writes nothing."""
        self._config = config
        self.location = join_location(config.dir, config.name)
        self._store = Store(self.location)
        self._copy = WorkingCopy(self._store, config.deadlines.checkpoint_s)
        self._lock = RunLock(self.location, config.deadlines.lease_s)
        self.checkpoints = Checkpoints(self._store, config.checkpoint, lambda: self._lock.number)
        self.path = self._copy.path
        self.rollouts = self.path / layout.ROLLOUTS

    @property
    def model(self) -> str:
        """The location of the policy at the end of the run."""
        return join_location(self.location, layout.MODEL)

    def check(self) -> None:
        """Raises `ConfigError` if the directory holds another run, or one that must not be resumed. Writes nothing.

        A start that ended before anything was measured allows any config. Raises `CheckpointError` for a damaged
        newest checkpoint.
        """
        if self._store.path is not None and (reason := _why_not_writable(self._store.path)):
            raise ConfigError(f"dir={self._config.dir}: {reason}; allowed: a folder that can be written")
        if not self._has_begun():
            return
        if self._config.checkpoint.resume == "never":
            raise ConfigError(
                f"checkpoint.resume=never: {self.location} holds a run; allowed: another `name`, or resume=auto"
            )
        with borrowed(join_location(self.location, layout.CONFIG)) as file:
            refused = refused_change(load_run_config(file, []), self._config)
        if refused is not None:
            raise ConfigError(f"{refused} ({self.location} holds the run)")

    def prompt_date(self) -> str | None:
        """Return the date that the run's prompts were begun with; None for a new run, or one that recorded none."""
        content = self._store.read(layout.INPUTS)
        if content is None or not self._has_begun():
            return None
        day: str | None = json.loads(content).get(PROMPT_DATE)
        return day

    def check_inputs(self, digests: Mapping[str, str]) -> None:
        """Raises `ConfigError` if the directory holds a run with other tasks or another model, or a deterministic
        one with other code.

        The code of an environment may be corrected in the middle of a run that is not deterministic; that is printed.
        """
        content = self._store.read(layout.INPUTS)
        if content is None or not self._has_begun():
            return
        before = json.loads(content)
        for key in digests:
            is_new = key.startswith("model ") or key == PROMPT_DATE
            if before.get(key) == digests[key] or (is_new and key not in before):
                continue  # a run of an older version did not record its model or a date
            if key == "env.code" and not self._config.deterministic:
                print("env.code: the files have changed since the run was started; the new ones are used", flush=True)
                continue
            if key.startswith("model "):
                raise ConfigError(
                    f"model.path={self._config.model.path}: its {key.removeprefix('model ')} changed since the run in "
                    f"{self.location} was started; allowed: the model as it was, or another `name`"
                )
            raise ConfigError(f"{key}: not what the run in {self.location} was started with; allowed: another `name`")

    def open(self, digests: Mapping[str, str], facts: Mapping[str, Any] | None = None) -> None:
        """Lock and create the directory; record the inputs and the `facts` of this start.

        Raises `ConfigError` if a live run holds the directory, `StorageError` or `TransferError` of a store.
        """
        self._lock.take()
        self._copy.pull()
        write_atomically(self.path / layout.CONFIG, dump_run_config(self._config))
        write_atomically(self.path / layout.INPUTS, json.dumps(dict(digests)))
        write_atomically(self.path / layout.FACTS, json.dumps(dict(facts or {})))
        self.checkpoints.clear()
        self.push()

    async def watch_lock(self) -> None:
        """Check the run lock for ever. Raises `LockLost` as soon as this run must not write in the directory."""
        while True:
            self.require_held()
            await asyncio.sleep(LOOK_EVERY_S)

    def require_held(self) -> None:
        """Raises `LockLost` if this run must not write in the directory any more."""
        self._lock.check()

    def push(self) -> None:
        """Upload what has changed in `path`, where the directory is in a store.

        Raises `LockLost`, `StorageError` or `TransferError`.
        """
        self.require_held()
        self._copy.push()

    def push_if_possible(self) -> str:
        """Do as `push`, and return why it failed, "" if it did not; the next push uploads what is missing.

        Raises `LockLost`.
        """
        self.require_held()
        try:
            self.push()
        except SdpoError as error:
            return str(error)
        return ""

    def close(self) -> None:
        """Upload what can be uploaded, and release the run lock."""
        with contextlib.suppress(SdpoError, OSError):  # the error that ended the run is the one to report
            self.push()
        self._lock.release()

    def next_incarnation(self) -> int:
        """Count a start of this run, and return the count; 1 at the first."""
        file = self.path / layout.INCARNATION
        incarnation = int(file.read_text()) + 1 if file.exists() else 1
        write_atomically(file, str(incarnation))
        self.push()
        return incarnation

    def _has_begun(self) -> bool:
        """Return whether a run left a checkpoint or a record of a step here."""
        if not self._store.exists(layout.CONFIG):
            return False
        return self.checkpoints.newest() is not None or bool(parse_metrics(self._store.read(layout.METRICS) or b""))


def _why_not_writable(folder: Path) -> str:
    """Return why `folder`, or its nearest parent that exists, cannot take files; "" if it can. Writes nothing."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if os.path.lexists(path))
    if not there.is_dir():
        return f"{there} is not a folder"
    return "" if os.access(there, os.W_OK | os.X_OK) else f"{there} cannot be written to"

"""The run directory: resolved config, metrics, samples, checkpoints. Everything in it appears whole or not at all.

config.yaml            the resolved config
inputs.json            digests of the tasks and of `env.code`
facts.json             of the last start: when, versions of packages, numbers of tasks (see `orchestrator.facts`)
metrics.jsonl          one object a step; `tensorboard/` holds the same
alarms.jsonl           one object for every alarm that began; missing if there was none
samples/step-N.jsonl   what became of single attempts
trace/step-N.jsonl     every call of an actor, for `sdpo timeline`
rollouts/              with record.rollouts: every batch, to be trained on again (see `orchestrator.recorded_format`)
checkpoints/step-N/    learner state after N steps
stacks/                what every thread was doing when a deadline passed
lease/                 the lock (see `orchestrator.lease`)
model/                 the policy at the end, in Hugging Face format

Where `dir` is a URI, the run works in a local copy that has neither checkpoints nor model; what is whole in the copy
goes to the store after every step (see `orchestrator.remote_dir`, `orchestrator.stored_checkpoints`).
"""

import asyncio
import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.checkpoints import CheckpointPlace, Checkpoints
from orchestrator.lease import Lease
from orchestrator.metrics_log import read_metrics
from orchestrator.remote_dir import RemoteDir
from orchestrator.resume_rules import refused_change
from orchestrator.stored_checkpoints import StoredCheckpoints
from sdpo.config import RunConfig
from sdpo.config.load import dump_run_config, load_run_config
from sdpo.errors import ConfigError, SdpoError
from sdpo.files import write_atomically
from sdpo.storage import is_uri, joined
from sdpo.storage_cache import borrowed

LOOK_EVERY_S = 1.0
"""At the lock, while the run goes."""


class RunDir:
    """One run's directory, locked while it is open. `place`: as the config names it; `path`: where the run works."""

    def __init__(self, config: RunConfig) -> None:
        """Raises `StorageError` for a URI that cannot be used. Writes nothing."""
        self._config = config
        self._remote: RemoteDir | None = None
        self.checkpoints: CheckpointPlace
        if is_uri(config.dir):
            self.place = joined(config.dir, config.name)
            self._remote = RemoteDir(self.place, config.deadlines.checkpoint_s)
            self.path = self._remote.local
            self._lease = Lease(self.place, config.deadlines.lease_s)
            self.checkpoints = StoredCheckpoints(self._remote.store, config.checkpoint, lambda: self._lease.number)
        else:
            self.path = Path(config.dir) / config.name
            self.place = str(self.path)
            self._lease = Lease(self.place, config.deadlines.lease_s)
            self.checkpoints = Checkpoints(self.path / "checkpoints", config.checkpoint)
        self.rollouts = self.path / "rollouts"

    @property
    def model(self) -> str:
        """Where the policy goes at the end, a path or a URI."""
        return joined(self.place, "model")

    def check(self) -> None:
        """Raises `ConfigError` if the directory holds another run, or one that must not be resumed. Writes nothing.

        A start that ended before anything was measured binds nobody. Raises `CheckpointError` for a damaged one.
        """
        if not self._has_begun():
            return
        if self._config.checkpoint.resume == "never":
            raise ConfigError(
                f"checkpoint.resume=never: {self.place} holds a run; allowed: another `name`, or resume=auto"
            )
        with borrowed(joined(self.place, "config.yaml")) as known:
            refused = refused_change(load_run_config(known, []), self._config)
        if refused is not None:
            raise ConfigError(f"{refused} ({self.place} holds the run)")

    def check_inputs(self, digests: Mapping[str, str]) -> None:
        """Raises `ConfigError` if the directory holds a run with other tasks, or a deterministic one with other code.

        A judge that was wrong may be mended in the middle of a run that is not deterministic; that is printed.
        """
        if not self._holds("inputs.json") or not self._has_begun():
            return
        with borrowed(joined(self.place, "inputs.json")) as known:
            before = json.loads(known.read_text())
        for key in digests:
            if before.get(key) == digests[key]:
                continue
            if key == "env.code" and not self._config.deterministic:
                print("env.code: the files have changed since the run was started; the new ones are used", flush=True)
                continue
            raise ConfigError(f"{key}: not what the run in {self.place} was started with; allowed: another `name`")

    def open(self, digests: Mapping[str, str], facts: Mapping[str, Any] | None = None) -> None:
        """Lock and create the directory; record the inputs and the `facts` of this start.

        Raises `ConfigError` if a live run holds the directory, `StorageError` or `TransferError` of a store.
        """
        self._lease.take()
        if self._remote is not None:
            self._remote.pull()
        self.path.mkdir(parents=True, exist_ok=True)
        write_atomically(self.path / "config.yaml", dump_run_config(self._config))
        write_atomically(self.path / "inputs.json", json.dumps(dict(digests)))
        write_atomically(self.path / "facts.json", json.dumps(dict(facts or {})))
        self.checkpoints.clear()
        self.push()

    async def watch_lock(self) -> None:
        """Never returns. Raises `LeaseLost` as soon as this run must not write in the directory any more."""
        while True:
            self.require_held()
            await asyncio.sleep(LOOK_EVERY_S)

    def require_held(self) -> None:
        """Raises `LeaseLost` if this run must not write in the directory any more."""
        self._lease.check()

    def push(self) -> None:
        """Have what is in `path` in the store, if there is one.

        Raises `LeaseLost`, `StorageError` or `TransferError`.
        """
        self.require_held()
        if self._remote is not None:
            self._remote.push()

    def push_if_possible(self) -> str:
        """As `push`; what the store did not take goes with the next push. Returns why, "" if all is there.

        Raises `LeaseLost`.
        """
        self.require_held()
        try:
            self.push()
        except SdpoError as error:
            return str(error)
        return ""

    def close(self) -> None:
        """Bring what can be brought, and give the lock back."""
        with contextlib.suppress(SdpoError, OSError):  # the error that ended the run is the one to be told
            self.push()
        self._lease.release()

    def next_incarnation(self) -> int:
        """Count a start of this run; 1 at the first."""
        file = self.path / "incarnation"
        incarnation = int(file.read_text()) + 1 if file.exists() else 1
        write_atomically(file, str(incarnation))
        self.push()
        return incarnation

    def _has_begun(self) -> bool:
        if not self._holds("config.yaml"):
            return False
        if self.checkpoints.newest() is not None:
            return True
        if not self._holds("metrics.jsonl"):
            return False
        with borrowed(joined(self.place, "metrics.jsonl")) as known:
            return bool(read_metrics(known))

    def _holds(self, name: str) -> bool:
        return (self.path / name).exists() if self._remote is None else self._remote.store.exists(name)

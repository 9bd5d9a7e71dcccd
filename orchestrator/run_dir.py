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
model/                 the policy at the end, in Hugging Face format
"""

import fcntl
import json
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from orchestrator.checkpoints import Checkpoints
from orchestrator.resume_rules import refused_change
from sdpo.config import RunConfig
from sdpo.config.load import dump_run_config, load_run_config
from sdpo.errors import ConfigError
from sdpo.files import write_atomically


class RunDir:
    """One run's directory, locked while it is open."""

    def __init__(self, config: RunConfig) -> None:
        self.path = Path(config.dir) / config.name
        self.rollouts = self.path / "rollouts"
        self.checkpoints = Checkpoints(self.path / "checkpoints", config.checkpoint)
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
        refused = refused_change(load_run_config(known, []), self._config)
        if refused is not None:
            raise ConfigError(f"{refused} ({self.path} holds the run)")

    def check_inputs(self, digests: Mapping[str, str]) -> None:
        """Raises `ConfigError` if the directory holds a run with other tasks, or a deterministic one with other code.

        A judge that was wrong may be mended in the middle of a run that is not deterministic; that is printed.
        """
        known = self.path / "inputs.json"
        if not known.exists():
            return
        before = json.loads(known.read_text())
        for key in digests:
            if before.get(key) == digests[key]:
                continue
            if key == "env.code" and not self._config.deterministic:
                print("env.code: the files have changed since the run was started; the new ones are used", flush=True)
                continue
            raise ConfigError(f"{key}: not what the run in {self.path} was started with; allowed: another `name`")

    def open(self, digests: Mapping[str, str], facts: Mapping[str, Any] | None = None) -> None:
        """Create and lock the directory; record the inputs and the `facts` of this start.

        Raises `ConfigError` if a live run holds the directory.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = (self.path / "lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"name={self._config.name}: {self.path} is in use by a live run") from None
        write_atomically(self.path / "config.yaml", dump_run_config(self._config))
        write_atomically(self.path / "inputs.json", json.dumps(dict(digests)))
        write_atomically(self.path / "facts.json", json.dumps(dict(facts or {})))
        self.checkpoints.clear()

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

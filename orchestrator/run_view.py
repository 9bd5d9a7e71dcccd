"""A run directory for reading, while the run goes or after it: config, metrics, alarms, samples, models."""

import json
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from orchestrator.checkpoints import Kept, kept_checkpoints
from orchestrator.metrics_log import read_metrics
from orchestrator.remote_dir import origin_of, reading_copy
from orchestrator.sample_form import FORM
from orchestrator.stored_checkpoints import stored_checkpoints
from sdpo.config import RunConfig
from sdpo.config.load import load_run_config
from sdpo.errors import ConfigError
from sdpo.show import show
from sdpo.storage import Store, joined

MODEL_MARK = "config.json"
"""Comes last into a model folder."""


class RunView:
    """Reads; never writes or locks. What is being written meanwhile appears in a new view.

    `place` is where the directory lies, a path or a URI; `path` is where it can be read, a local copy of a URI.
    """

    def __init__(self, path: Path | str) -> None:
        """`path`: a path or a URI. Raises `ConfigError` if there is no run directory, `StorageError` or `TransferError`
        of a store.
        """
        self.path = reading_copy(path)
        self._origin = origin_of(self.path)
        self.place = self._origin or str(self.path)
        if not (self.path / "config.yaml").is_file():
            raise ConfigError(f"{self.place}: allowed: a run directory, which holds config.yaml (runs/NAME)")

    @property
    def name(self) -> str:
        return self.config.name

    @cached_property
    def config(self) -> RunConfig:
        """As it was resolved when the run was started last."""
        return load_run_config(self.path / "config.yaml", [])

    @cached_property
    def metrics(self) -> list[dict[str, Any]]:
        """One record a step, in order; values that were not finite are None. Step 0 is before training."""
        return read_metrics(self.path / "metrics.jsonl")

    @cached_property
    def alarms(self) -> list[dict[str, Any]]:
        """Every alarm that began: name, step, message and more (see `sdpo.health.Alarm`)."""
        return read_metrics(self.path / "alarms.jsonl")

    @cached_property
    def inputs(self) -> dict[str, str]:
        """SHA-256 of both task sets and of `env.code`; nothing where an older version wrote the directory."""
        return self._json("inputs.json")

    @cached_property
    def facts(self) -> dict[str, Any]:
        """Of the last start (see `orchestrator.facts`); nothing where an older version wrote the directory."""
        return self._json("facts.json")

    @property
    def checkpoints(self) -> list[Kept]:
        """The complete checkpoints that lie there now, the oldest first."""
        if self._origin is not None:
            return stored_checkpoints(Store(self._origin))
        return kept_checkpoints(self.path / "checkpoints")

    @property
    def model_place(self) -> str | None:
        """Where the policy at the end lies, a path or a URI; None while the run is not complete."""
        model = joined(self.place, "model")
        is_there = (Path(model) / MODEL_MARK).is_file() if self._origin is None else Store(model).exists(MODEL_MARK)
        return model if is_there else None

    def _json(self, name: str) -> dict[str, Any]:
        file = self.path / name
        found: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {}
        return found

    def series(self, metric: str) -> list[tuple[int, float]]:
        """(step, value) of the steps that have the metric."""
        return [(r["step"], float(r[metric])) for r in self.metrics if r.get(metric) is not None]

    @cached_property
    def sampled_steps(self) -> list[int]:
        """Steps whose attempts were recorded, in order."""
        files = (self.path / "samples").glob("step-*.jsonl")
        return sorted(int(file.stem.removeprefix("step-")) for file in files)

    def samples(self, step: int) -> Iterator[dict[str, Any]]:
        """The recorded attempts of one step (see `orchestrator.sample_form`).

        Raises `ConfigError` if there are none, or if they are of another form than this version reads.
        """
        file = self.path / "samples" / f"step-{step:06d}.jsonl"
        if not file.is_file():
            steps = self.sampled_steps
            allowed = f"a step from {steps[0]} to {steps[-1]} that was recorded" if steps else "none was recorded"
            raise ConfigError(f"step={step}: {self.path} holds no samples of it; allowed: {allowed}")
        with file.open(encoding="utf-8") as lines:
            for line in lines:
                sample = json.loads(line)
                if sample.get("form") != FORM:
                    raise ConfigError(
                        f"{file}: form={show(sample.get('form'))} of recorded samples; allowed: {FORM} (they are of "
                        f"another version of sdpo; read them with that one)"
                    )
                yield sample

"""Read a run directory, during the run or after it: config, metrics, alarms, samples, models."""

import json
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from orchestrator.run_dir.checkpoints import Checkpoint, list_checkpoints
from orchestrator.run_dir.metrics_log import read_metrics
from orchestrator.run_dir.remote_dir import origin_of, reading_copy
from orchestrator.run_dir.sample_form import FORM
from sdpo.config import RunConfig
from sdpo.config.load import load_run_config
from sdpo.errors import ConfigError
from sdpo.own_code import nearest
from sdpo.paths import expanded
from sdpo.run_layout import (
    ALARMS,
    CONFIG,
    FACTS,
    INPUTS,
    METRICS,
    MODEL,
    MODEL_MARK,
    SAMPLES,
    step_file,
    step_files,
    step_of,
)
from sdpo.show import show
from sdpo.storage import Store, join_location


class RunView:
    """A read-only view of a run directory; it never writes or locks. A new view shows what was written meanwhile.

    `location`: the path or URI of the directory. `path`: where it can be read, a local copy of a URI.
    """

    def __init__(self, path: Path | str) -> None:
        """`path`: a path or a URI. Raises `ConfigError` if there is no run directory, `StorageError` or `TransferError`
        of a store.
        """
        try:
            self.path = reading_copy(expanded(str(path)))
        except ValueError as error:
            raise ConfigError(f"{show(str(path))}: {error}") from None
        self.location = origin_of(self.path) or str(self.path)
        if not (self.path / CONFIG).is_file():
            raise ConfigError(f"{self.location}: allowed: a run directory, which holds {CONFIG} (runs/NAME)")

    @property
    def name(self) -> str:
        """The run's name."""
        return self.config.name

    @cached_property
    def config(self) -> RunConfig:
        """The resolved config of the last start."""
        return load_run_config(self.path / CONFIG, [])

    @cached_property
    def metrics(self) -> list[dict[str, Any]]:
        """One record for each step, in order; values that were not finite are None. Step 0 is before training."""
        return read_metrics(self.path / METRICS)

    @cached_property
    def alarms(self) -> list[dict[str, Any]]:
        """Every alarm that began: name, step, message and more (see `sdpo.health.Alarm`)."""
        return read_metrics(self.path / ALARMS)

    @cached_property
    def inputs(self) -> dict[str, str]:
        """SHA-256 of both task sets and of `env.code`; empty for a run of an older version."""
        return self._json(INPUTS)

    @cached_property
    def facts(self) -> dict[str, Any]:
        """Facts of the last start (see `orchestrator.run_dir.facts`); empty for a run of an older version."""
        return self._json(FACTS)

    @property
    def checkpoints(self) -> list[Checkpoint]:
        """The complete checkpoints of the run directory, oldest first."""
        return list_checkpoints(Store(self.location))

    @property
    def model_location(self) -> str | None:
        """Path or URI of the policy at the end of the run; None while the run is not complete."""
        model = join_location(self.location, MODEL)
        return model if Store(model).exists(MODEL_MARK) else None

    def _json(self, name: str) -> dict[str, Any]:
        file = self.path / name
        content: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {}
        return content

    def series(self, metric: str) -> list[tuple[int, float]]:
        """Return (step, value) of the steps that have a finite value of the metric.

        Raises `ConfigError` for a metric that no recorded step has, with the nearest name.
        """
        names = {name for record in self.metrics for name in record}
        if names and metric not in names:
            hint = nearest(metric, sorted(names))
            raise ConfigError(
                f"metric {show(metric)}: no step of {self.location} has it{hint}; allowed: a key of metrics"
            )
        return [(r["step"], float(r[metric])) for r in self.metrics if r.get(metric) is not None]

    @cached_property
    def sampled_steps(self) -> list[int]:
        """The steps whose attempts were recorded, in order."""
        return [step_of(file) for file in step_files(self.path / SAMPLES)]

    def samples(self, step: int) -> Iterator[dict[str, Any]]:
        """Yield the recorded attempts of one step (see `orchestrator.run_dir.sample_form`).

        Raises `ConfigError` if there are none, or if they are of another form than this version reads.
        """
        file = step_file(self.path / SAMPLES, step)
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

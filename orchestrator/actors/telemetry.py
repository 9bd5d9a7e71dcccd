"""Telemetry of a run's actors, as Ray metrics."""

import time
from pathlib import Path

from ray.util import metrics

from orchestrator.actors.run_actors import RunActors
from orchestrator.telemetry.run_telemetry import Telemetry
from orchestrator.telemetry.trace_log import TraceLog
from sdpo.run_layout import TRACE
from sdpo.telemetry.meters import Meters


def open_telemetry(actors: RunActors, run: str, run_dir: Path, steps_done: int) -> Telemetry:
    """Start the telemetry of `run` (name and incarnation); the caller binds its `hear`. Inside a Ray session only."""
    config, folder, trace = actors.config, run_dir / TRACE, None
    shift_s = time.time() - time.monotonic()
    if config.record.trace:
        trace = TraceLog(folder, resumed_steps=steps_done, wall_minus_clock_s=shift_s)
    telemetry = Telemetry(Meters(metrics, run), run_dir, trace)
    telemetry.open(lambda: actors.fleets, lambda: list(actors.gang.ranks), steps=steps_done, planned=config.steps)
    return telemetry

"""Telemetry of the actors of a house, through Ray."""

import time
from pathlib import Path

from ray.util import metrics

from orchestrator.house import House
from orchestrator.telemetry import Telemetry
from orchestrator.trace_log import TraceLog
from sdpo.telemetry.meters import Meters


def open_telemetry(house: House, run: str, run_dir: Path, steps_done: int) -> Telemetry:
    """From now on this context's calls of actors are counted, until it is closed. Inside a Ray session only.

    `run`: name and incarnation.
    """
    config, folder, trace = house.config, run_dir / "trace", None
    shift_s = time.time() - time.monotonic()
    if config.record.trace:
        trace = TraceLog(folder, resumed_steps=steps_done, wall_minus_clock_s=shift_s)
    telemetry = Telemetry(Meters(metrics, run), run_dir, trace)
    telemetry.open(lambda: house.fleets, lambda: list(house.gang.ranks), steps=steps_done, planned=config.steps)
    return telemetry

"""metrics.jsonl and TensorBoard's events: one record for every step."""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.events import Event, StepRecorded
from sdpo.files import write_atomically
from sdpo.run_layout import METRICS, TENSORBOARD


class MetricsLog:
    """Appends records. A resumed run first removes the records of steps after its checkpoint."""

    def __init__(self, folder: Path, *, resumed_steps: int, tensorboard: bool) -> None:
        self._file = folder / METRICS
        records = [r for r in read_metrics(self._file) if r["step"] <= resumed_steps] if resumed_steps else []
        write_atomically(self._file, "".join(json.dumps(r) + "\n" for r in records))
        self._writer: Any = None
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(folder / TENSORBOARD), purge_step=resumed_steps + 1)

    def hear(self, event: Event) -> None:
        """Write the record of a step as it is recorded."""
        if isinstance(event, StepRecorded):
            self.write(event.step, event.metrics)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Append the record of one step, flushed to the disk; values that are not finite are written as null."""
        record = {"step": step} | {k: v if math.isfinite(v) else None for k, v in values.items()}
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
            file.flush()
            os.fsync(file.fileno())  # before the checkpoint of this step
        if self._writer is not None:
            for key, value in values.items():
                self._writer.add_scalar(key, value, step)
            self._writer.flush()

    def close(self) -> None:
        """Close the event file."""
        if self._writer is not None:
            self._writer.close()


def read_metrics(file: Path) -> list[dict[str, Any]]:
    """Return all records of a metrics.jsonl, in order; [] if there is no such file."""
    return parse_metrics(file.read_bytes()) if file.exists() else []


def parse_metrics(content: bytes) -> list[dict[str, Any]]:
    """Return the records that a metrics.jsonl holds, without a last line that was not finished."""
    return [json.loads(line) for line in content.split(b"\n")[:-1]]

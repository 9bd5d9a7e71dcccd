"""metrics.jsonl, TensorBoard and whoever else listens: one record a step."""

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sdpo.files import write_atomically

Listener = Callable[[int, Mapping[str, float]], None]


class MetricsLog:
    """Appends records; on resuming, records newer than the checkpoint are cut off first."""

    def __init__(
        self, folder: Path, *, resumed_steps: int, tensorboard: bool, listeners: Sequence[Listener] = ()
    ) -> None:
        """`listeners` are told of every record after it was written: its step and its values."""
        self._file = folder / "metrics.jsonl"
        kept = [r for r in read_metrics(self._file) if r["step"] <= resumed_steps] if resumed_steps else []
        write_atomically(self._file, "".join(json.dumps(r) + "\n" for r in kept))
        self._listeners = listeners
        self._writer: Any = None
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=resumed_steps + 1)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Add one step's record; values that are not finite are written as null."""
        record = {"step": step} | {k: v if math.isfinite(v) else None for k, v in values.items()}
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
            file.flush()
            os.fsync(file.fileno())  # before the checkpoint of this step
        if self._writer is not None:
            for key, value in values.items():
                self._writer.add_scalar(key, value, step)
            self._writer.flush()
        for listener in self._listeners:
            listener(step, values)

    def close(self) -> None:
        """Close the event file."""
        if self._writer is not None:
            self._writer.close()


def read_metrics(file: Path) -> list[dict[str, Any]]:
    """All records of a metrics.jsonl, in order; [] if there is none. A torn last line is left out."""
    if not file.exists():
        return []
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]

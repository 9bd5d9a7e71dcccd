"""A run's alarms on disk: what the monitor said is one JSON object a line in alarms.jsonl."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from orchestrator.metrics_log import read_metrics
from sdpo.config import HealthConfig
from sdpo.errors import StoppedByAlarm
from sdpo.files import write_atomically
from sdpo.health import Alarm, HealthMonitor


class Watch:
    """Judges every step. A resumed run hears again what metrics.jsonl holds, and drops alarms of steps it does not."""

    def __init__(self, config: HealthConfig, folder: Path) -> None:
        self._stops = config.on_alarm == "stop"
        self._file = folder / "alarms.jsonl"
        self._monitor = HealthMonitor(config)
        records = read_metrics(folder / "metrics.jsonl")
        for record in records:
            self._monitor.observe(record["step"], {name: v for name, v in record.items() if name != "step"})
        if self._file.exists():
            done = records[-1]["step"] if records else -1
            lines = self._file.read_text(encoding="utf-8").splitlines(keepends=True)
            kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= done]
            write_atomically(self._file, "".join(kept))

    def observe(self, step: int, metrics: Mapping[str, float]) -> tuple[dict[str, float], list[Alarm]]:
        """Of a step that is not in metrics.jsonl yet: what goes there beside `metrics`, and the alarms that begin."""
        begun = self._monitor.observe(step, metrics)
        return self._monitor.metrics(), begun

    def write(self, begun: Sequence[Alarm]) -> None:
        """Write down alarms that began."""
        if not begun:
            return
        with self._file.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(dataclasses.asdict(alarm)) + "\n" for alarm in begun)

    def stop_if_asked(self, begun: Sequence[Alarm]) -> None:
        """Raises `StoppedByAlarm` if an alarm began and the config says stop."""
        if begun and self._stops:
            names = ", ".join(alarm.name for alarm in begun)
            raise StoppedByAlarm(
                f"stopped after step {begun[0].step} by {names} (health.on_alarm=stop), with a checkpoint; "
                f"{begun[0].message}"
            )

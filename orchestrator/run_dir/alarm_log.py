"""The alarms of a run on disk: alarms.jsonl, one JSON object a line."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from orchestrator.events import AlarmRaised, Event
from orchestrator.run_dir.metrics_log import read_metrics
from sdpo.config import HealthConfig
from sdpo.errors import StoppedByAlarm
from sdpo.files import write_atomically
from sdpo.health import Alarm, HealthMonitor
from sdpo.run_layout import ALARMS, METRICS


class AlarmLog:
    """Judges every step and records the alarms that begin.

    A resumed run restores the monitor from metrics.jsonl and drops alarms of steps that it will do again.
    """

    def __init__(self, config: HealthConfig, folder: Path) -> None:
        self._stops = config.on_alarm == "stop"
        self._file = folder / ALARMS
        self._monitor = HealthMonitor(config)
        records = read_metrics(folder / METRICS)
        for record in records:
            self._monitor.observe(record["step"], {name: v for name, v in record.items() if name != "step"})
        if self._file.exists():
            done = records[-1]["step"] if records else -1
            lines = self._file.read_text(encoding="utf-8").splitlines(keepends=True)
            kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= done]
            write_atomically(self._file, "".join(kept))

    def observe(self, step: int, metrics: Mapping[str, float]) -> tuple[dict[str, float], list[Alarm]]:
        """Judge a step that is not in metrics.jsonl yet; return its health metrics and the alarms that begin."""
        begun = self._monitor.observe(step, metrics)
        return self._monitor.metrics(), begun

    def hear(self, event: Event) -> None:
        """Append an alarm that began to alarms.jsonl."""
        if isinstance(event, AlarmRaised):
            with self._file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(dataclasses.asdict(event.alarm)) + "\n")

    def stop_if_asked(self, begun: Sequence[Alarm]) -> None:
        """Raise `StoppedByAlarm` if an alarm began and health.on_alarm is stop."""
        if begun and self._stops:
            names = ", ".join(alarm.name for alarm in begun)
            raise StoppedByAlarm(
                f"stopped after step {begun[0].step} by {names} (health.on_alarm=stop), with a checkpoint; "
                f"{begun[0].message}"
            )

"""alarms.jsonl: what is written, what a resumed run restores and drops, and how a run is stopped."""

import json
from pathlib import Path

import pytest

from orchestrator.events import AlarmRaised
from orchestrator.run_dir.alarm_log import AlarmLog
from sdpo.config import HealthConfig
from sdpo.errors import StoppedByAlarm

GOOD, BAD = {"train/engine_gap_mean": 0.0}, {"train/engine_gap_mean": 5.0}


def alarms_of(folder: Path) -> list[tuple[str, int]]:
    lines = (folder / "alarms.jsonl").read_text().splitlines()
    return [(alarm["name"], alarm["step"]) for alarm in map(json.loads, lines)]


def test_an_alarm_is_written_once_and_its_metric_stays_on(tmp_path: Path) -> None:
    log = AlarmLog(HealthConfig(), tmp_path)
    for step, metrics in enumerate([GOOD, BAD, BAD], 1):
        health, begun = log.observe(step, metrics)
        for alarm in begun:
            log.hear(AlarmRaised(alarm=alarm))
        assert health["health/mismatch"] == float(metrics is BAD)
        log.stop_if_asked(begun)
    assert alarms_of(tmp_path) == [("mismatch", 2)]


def test_a_resumed_run_remembers_what_metrics_hold_and_drops_later_and_broken_lines(tmp_path: Path) -> None:
    records = [{"step": 1, **GOOD}, {"step": 2, **BAD}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    lines = [json.dumps({"name": "mismatch", "step": step, "message": "m"}) + "\n" for step in (2, 3)]
    (tmp_path / "alarms.jsonl").write_text("".join(lines) + '{"name": "mis')
    log = AlarmLog(HealthConfig(), tmp_path)
    assert alarms_of(tmp_path) == [("mismatch", 2)]
    assert log.observe(3, BAD)[1] == [], "the alarm of step 2 goes on"


def test_stop_raises_with_step_names_and_message(tmp_path: Path) -> None:
    log = AlarmLog(HealthConfig(on_alarm="stop"), tmp_path)
    _, begun = log.observe(1, BAD)
    with pytest.raises(StoppedByAlarm, match=r"stopped after step 1 by mismatch \(health\.on_alarm=stop\).*5 nats"):
        log.stop_if_asked(begun)
    log.stop_if_asked([])

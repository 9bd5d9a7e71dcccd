"""The timeline of a run: what Perfetto asks of Chrome's trace events, and the command."""

import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli import main
from orchestrator.commands.timeline.timeline import timeline
from tests.fixtures.trace_events import check_trace_events

ROWS: list[dict[str, Any]] = [
    {"actor": "rollout-0", "call": "generate", "stage": "generate", "start": 5.0, "end": 8.0, "step": 1, "task": "a"},
    {"actor": "rollout-0", "call": "generate", "stage": "generate", "start": 5.5, "end": 7.0, "step": 1, "task": "b"},
    {"actor": "env-10", "call": "step", "stage": "judge", "start": 6.0, "end": 6.1, "step": 1, "task": "a"},
    {"actor": "env-2", "call": "step", "stage": "judge", "start": 6.0, "end": 6.2, "step": 1, "task": "b"},
    {
        "actor": "env-2",
        "call": "step",
        "stage": "judge",
        "start": 6.2,
        "end": 6.3,
        "step": 1,
        "task": "a",
        "failed": True,
    },
    {"actor": "teacher-0", "call": "score", "stage": "score", "start": 8.5, "end": 9.0, "step": 1, "task": "a"},
    {"actor": "learner-rank0", "call": "train", "stage": "train", "start": 9.0, "end": 12.0, "step": 1},
    {"dropped": 7},
]


def test_a_timeline_is_what_perfetto_reads() -> None:
    document = timeline(ROWS)
    by_phase = check_trace_events(document)
    assert len(by_phase["X"]) == 7
    threads = [e["args"]["name"] for e in by_phase["M"] if e["name"] == "thread_name"]
    assert threads == ["rollout-0", "rollout-0 (2)", "env-2", "env-10", "teacher-0", "learner-rank0"]
    assert [e["args"]["name"] for e in by_phase["M"] if e["name"] == "process_name"] == [
        "rollout", "env", "teacher", "learner",
    ]  # fmt: skip
    assert {(e["name"], e["ts"], e["dur"]) for e in by_phase["X"] if e["cat"] == "train"} == {
        ("train", 4_000_000, 3_000_000)
    }
    assert [e["args"] for e in by_phase["X"] if e["args"].get("failed")] == [{"step": 1, "task": "a", "failed": True}]
    assert [e["ph"] for e in document["traceEvents"] if e["name"] == "step 1: a"] == ["s", "t", "t", "f"]
    assert timeline([])["traceEvents"] == []


def trace(folder: Path) -> Path:
    """A run directory with the rows in step 1 and one more call in step 2."""
    (folder / "trace").mkdir()
    (folder / "trace/step-000001.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    later = ROWS[-2] | {"start": 20.0, "end": 21.0, "step": 2}
    (folder / "trace/step-000002.jsonl").write_text(json.dumps(later) + "\n")
    return folder


@pytest.mark.parametrize(("steps", "num_calls"), [(":", 8), ("2:", 1), (":1", 7), ("1:2", 8), ("3:", 0)])
def test_the_command_writes_the_steps_that_are_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], steps: str, num_calls: int
) -> None:
    assert main(["timeline", str(trace(tmp_path)), "--steps", steps]) == 0
    assert f"({num_calls} calls" in capsys.readouterr().out
    by_phase = check_trace_events(json.loads((tmp_path / "timeline.json").read_text()))
    assert len(by_phase["X"]) == num_calls


def test_a_run_without_a_trace_and_a_wrong_range_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["timeline", str(tmp_path)]) == 2
    assert "record.trace=true" in capsys.readouterr().err
    run_dir = str(trace(tmp_path))
    for steps, reason in (("a:3", "a; allowed: a whole number at least 0"), ("3", "3; allowed: FIRST:LAST")):
        assert main(["timeline", run_dir, "--steps", steps]) == 2
        assert f"--steps: {reason}" in capsys.readouterr().err

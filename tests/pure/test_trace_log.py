"""The trace of a run: what a step's file holds, what joins the last one, and which steps a reader gets."""

from pathlib import Path

from orchestrator.events import CallBegan
from orchestrator.telemetry.trace_log import Span, TraceLog, read_trace
from sdpo.run_layout import step_files


def span(actor: str, start_s: float, *, failed: bool = False, **about: object) -> Span:
    call = CallBegan(actor=actor, call="step", stage="judge", **about)  # type: ignore[arg-type]
    return Span(call=call, start_s=start_s, end_s=start_s + 0.5, failed=failed)


def test_calls_belong_to_the_step_in_which_they_ended_and_the_rest_joins_the_last_one(tmp_path: Path) -> None:
    log = TraceLog(tmp_path / "trace", resumed_steps=0, wall_minus_clock_s=1000.0)
    log.add(span("env-0", 1.0, step=1, task="a"))
    log.write(1)
    log.add(span("env-1", 2.0, step=2, failed=True))
    log.write(2)
    log.add(span("env-2", 3.0))
    log.close()
    assert [file.name for file in step_files(tmp_path / "trace")] == ["step-000001.jsonl", "step-000002.jsonl"]
    rows = list(read_trace(tmp_path / "trace"))
    assert [row["actor"] for row in rows] == ["env-0", "env-1", "env-2"]
    assert rows[0] == {
        "actor": "env-0",
        "call": "step",
        "stage": "judge",
        "start": 1001.0,
        "end": 1001.5,
        "step": 1,
        "task": "a",
    }
    assert [row.get("failed") for row in rows] == [None, True, None]
    assert [row["actor"] for row in read_trace(tmp_path / "trace", first=2)] == ["env-1", "env-2"]
    assert [row["actor"] for row in read_trace(tmp_path / "trace", last=1)] == ["env-0"]


def test_a_run_from_the_start_removes_the_trace_of_the_one_before(tmp_path: Path) -> None:
    (tmp_path / "step-000001.jsonl").write_text("{}\n")
    TraceLog(tmp_path, resumed_steps=0, wall_minus_clock_s=0.0).close()
    assert list(read_trace(tmp_path)) == []

"""Convert a run's trace to a timeline for Perfetto or chrome://tracing: the JSON of Chrome's trace events.

Every role is a process. Complete events ("X") of one thread must nest, while calls of an actor may overlap, so an actor
has as many threads as it served calls at once. Arrows ("s", "t", "f") follow a task of a step from call to call. Times
are microseconds since the first call.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from orchestrator.telemetry.spans import role_of
from sdpo.telemetry.labels import ROLES

Row = Mapping[str, Any]
Event = dict[str, Any]

COLOURS = {
    "generate": "thread_state_running",
    "judge": "rail_response",
    "old_log_probs": "rail_animation",
    "score": "rail_load",
    "train": "cq_build_running",
    "publish": "thread_state_iowait",
    "save": "grey",
    "evaluate": "rail_idle",
    "start": "startup",
}
"""Colours by call, for Chrome's viewer; Perfetto chooses its own by name."""


def timeline(rows: Iterable[Row]) -> dict[str, Any]:
    """Return the whole document. `rows`: those of `trace_log.read_trace`; without any, the timeline is empty."""
    spans = sorted((row for row in rows if "actor" in row), key=lambda row: (row["start"], row["end"]))
    first_s = spans[0]["start"] if spans else 0.0
    lanes = _lanes(spans)
    threads = {lane: number for number, lane in enumerate(sorted(set(lanes), key=_order), start=1)}
    starts = [
        {"pid": _process(lane[0]), "tid": threads[lane], "ts": _us(span["start"] - first_s)}
        for span, lane in zip(spans, lanes, strict=True)
    ]
    events = [*_names(threads), *_calls(spans, starts, first_s), *_flows(spans, starts)]
    return {"traceEvents": events, "displayTimeUnit": "ms", "otherData": {"first_call_unix_s": first_s}}


def write_timeline(rows: Iterable[Row], file: Path) -> int:
    """Write the document; returns the number of its calls."""
    document = timeline(rows)
    file.write_text(json.dumps(document, separators=(",", ":")), encoding="utf-8")
    return sum(event["ph"] == "X" for event in document["traceEvents"])


def _lanes(spans: list[Row]) -> list[tuple[str, int]]:
    """Return for every span, sorted by start, its actor and the first lane of the actor that is free."""
    free_from: dict[str, list[float]] = {}
    lanes = []
    for span in spans:
        ends = free_from.setdefault(span["actor"], [])
        lane = next((number for number, end in enumerate(ends) if end <= span["start"]), len(ends))
        if lane == len(ends):
            ends.append(0.0)
        ends[lane] = span["end"]
        lanes.append((str(span["actor"]), lane))
    return lanes


def _order(lane: tuple[str, int]) -> tuple[int, int, str, int]:
    """Return the sort key of a lane: role in the order of the pipeline, then actor, with env-2 before env-10."""
    actor, number = lane
    return ROLES.index(role_of(actor)), len(actor), actor, number


def _names(threads: Mapping[tuple[str, int], int]) -> Iterator[Event]:
    for role in sorted({role_of(actor) for actor, _ in threads}, key=ROLES.index):
        pid = ROLES.index(role) + 1
        yield {"ph": "M", "name": "process_name", "pid": pid, "tid": 0, "args": {"name": role}}
        yield {"ph": "M", "name": "process_sort_index", "pid": pid, "tid": 0, "args": {"sort_index": pid}}
    for (actor, lane), number in threads.items():
        name = actor if lane == 0 else f"{actor} ({lane + 1})"
        thread = {"pid": _process(actor), "tid": number}
        yield {"ph": "M", "name": "thread_name", **thread, "args": {"name": name}}
        yield {"ph": "M", "name": "thread_sort_index", **thread, "args": {"sort_index": number}}


def _calls(spans: list[Row], starts: list[Event], first_s: float) -> Iterator[Event]:
    for span, start in zip(spans, starts, strict=True):
        yield {
            "ph": "X",
            "name": span["call"],
            "cat": span["stage"],
            **start,
            "dur": _us(span["end"] - first_s) - start["ts"],
            "cname": COLOURS[span["stage"]],
            "args": {key: span[key] for key in ("step", "task", "failed") if key in span},
        }


def _flows(spans: list[Row], starts: list[Event]) -> Iterator[Event]:
    """Yield the arrows of every task that has at least two calls in a step, from its first call to its last."""
    calls_by_task: dict[tuple[int, str], list[int]] = {}
    for index, span in enumerate(spans):
        if "task" in span and "step" in span:
            calls_by_task.setdefault((span["step"], span["task"]), []).append(index)
    several = [(key, indices) for key, indices in calls_by_task.items() if len(indices) > 1]
    for number, ((step, task), indices) in enumerate(several, start=1):
        for position, index in enumerate(indices):
            phase = "s" if position == 0 else "f" if position == len(indices) - 1 else "t"
            event = {"ph": phase, "id": number, "name": f"step {step}: {task}", "cat": "task", **starts[index]}
            yield event | ({"bp": "e"} if phase == "f" else {})


def _process(actor: str) -> int:
    return ROLES.index(role_of(actor)) + 1


def _us(seconds: float) -> int:
    """Return whole microseconds, the resolution of the trace."""
    return round(seconds * 1e6)

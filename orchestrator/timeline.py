"""A run's trace as a timeline for Perfetto or chrome://tracing: the JSON of Chrome's trace events.

A process for every role, a thread for every call that an actor serves at once: complete events ("X") of one thread must
nest, and calls of an actor overlap as they like. Arrows ("s", "t", "f") follow a task of a step from call to call.
Times are microseconds since the first call.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from orchestrator.spans import role_of
from sdpo.telemetry.labels import ROLES

Row = Mapping[str, Any]
Event = dict[str, Any]

COLOURS = {
    "generate": "thread_state_running",
    "judge": "rail_response",
    "recall": "rail_animation",
    "score": "rail_load",
    "train": "cq_build_running",
    "publish": "thread_state_iowait",
    "save": "grey",
    "evaluate": "rail_idle",
    "start": "startup",
}
"""Of Chrome's viewer; Perfetto chooses by name."""


def timeline(rows: Iterable[Row]) -> dict[str, Any]:
    """The whole document. `rows` are those of `trace_log.read_trace`; empty ones make an empty timeline."""
    spans = sorted((row for row in rows if "actor" in row), key=lambda row: (row["start"], row["end"]))
    first_s = spans[0]["start"] if spans else 0.0
    lanes = _lanes(spans)
    threads = {lane: number for number, lane in enumerate(sorted(set(lanes), key=_order), start=1)}
    events = [*_names(threads), *_calls(spans, lanes, threads, first_s), *_flows(spans, lanes, threads, first_s)]
    return {"traceEvents": events, "displayTimeUnit": "ms", "otherData": {"first_call_unix_s": first_s}}


def write_timeline(rows: Iterable[Row], file: Path) -> int:
    """Write the document; returns the number of calls in it."""
    document = timeline(rows)
    file.write_text(json.dumps(document, separators=(",", ":")), encoding="utf-8")
    return sum(event["ph"] == "X" for event in document["traceEvents"])


def _lanes(spans: list[Row]) -> list[tuple[str, int]]:
    """For every span (by start) the actor and the first of its lanes that is free."""
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
    """By role in the order of the pipeline, then by actor: env-2 before env-10."""
    actor, number = lane
    return ROLES.index(role_of(actor)), len(actor), actor, number


def _names(threads: Mapping[tuple[str, int], int]) -> Iterator[Event]:
    for role in sorted({role_of(actor) for actor, _ in threads}, key=ROLES.index):
        place = ROLES.index(role) + 1
        yield {"ph": "M", "name": "process_name", "pid": place, "tid": 0, "args": {"name": role}}
        yield {"ph": "M", "name": "process_sort_index", "pid": place, "tid": 0, "args": {"sort_index": place}}
    for (actor, lane), number in threads.items():
        name = actor if lane == 0 else f"{actor} ({lane + 1})"
        where = {"pid": _process(actor), "tid": number}
        yield {"ph": "M", "name": "thread_name", **where, "args": {"name": name}}
        yield {"ph": "M", "name": "thread_sort_index", **where, "args": {"sort_index": number}}


def _calls(
    spans: list[Row], lanes: list[tuple[str, int]], threads: Mapping[tuple[str, int], int], first_s: float
) -> Iterator[Event]:
    for span, lane in zip(spans, lanes, strict=True):
        yield {
            "ph": "X",
            "name": span["call"],
            "cat": span["stage"],
            "pid": _process(lane[0]),
            "tid": threads[lane],
            "ts": _us(span["start"] - first_s),
            "dur": _us(span["end"] - first_s) - _us(span["start"] - first_s),
            "cname": COLOURS[span["stage"]],
            "args": {key: span[key] for key in ("step", "task", "failed") if key in span},
        }


def _flows(
    spans: list[Row], lanes: list[tuple[str, int]], threads: Mapping[tuple[str, int], int], first_s: float
) -> Iterator[Event]:
    """From a task's first call in a step over the others to its last; a flow needs two calls."""
    journeys: dict[tuple[int, str], list[int]] = {}
    for index, span in enumerate(spans):
        if "task" in span and "step" in span:
            journeys.setdefault((span["step"], span["task"]), []).append(index)
    several = [(key, indices) for key, indices in journeys.items() if len(indices) > 1]
    for number, ((step, task), indices) in enumerate(several, start=1):
        for place, index in enumerate(indices):
            phase = "s" if place == 0 else "f" if place == len(indices) - 1 else "t"
            event = {
                "ph": phase,
                "id": number,
                "name": f"step {step}: {task}",
                "cat": "task",
                "pid": _process(lanes[index][0]),
                "tid": threads[lanes[index]],
                "ts": _us(spans[index]["start"] - first_s),
            }
            yield event | ({"bp": "e"} if phase == "f" else {})


def _process(actor: str) -> int:
    return ROLES.index(role_of(actor)) + 1


def _us(seconds: float) -> int:
    """Whole microseconds: what the trace knows."""
    return round(seconds * 1e6)

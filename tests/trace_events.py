"""What the format of Chrome's trace events asks of a document."""

from collections import defaultdict
from typing import Any


def check_trace_events(document: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Events by phase, after what the format asks of each: fields, names of threads, nesting, whole flows."""
    by_phase: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for event in document["traceEvents"]:
        assert {"ph", "name", "pid", "tid"} <= event.keys()
        assert isinstance(event["pid"], int)
        assert isinstance(event["tid"], int)
        by_phase[event["ph"]].append(event)
    assert by_phase.keys() <= {"M", "X", "s", "t", "f"}
    named = {(e["pid"], e["tid"]) for e in by_phase["M"] if e["name"] == "thread_name"}
    ends: dict[tuple[int, int], int] = {}
    for call in sorted(by_phase["X"], key=lambda e: e["ts"]):
        where = call["pid"], call["tid"]
        assert where in named
        assert isinstance(call["ts"], int)
        assert call["dur"] >= 0
        assert call["ts"] >= ends.get(where, 0), "calls of one thread must not overlap"
        ends[where] = call["ts"] + call["dur"]
    starts = {(e["pid"], e["tid"], e["ts"]) for e in by_phase["X"]}
    flows: dict[int, str] = defaultdict(str)
    for event in document["traceEvents"]:
        if event["ph"] in "stf":
            assert (event["pid"], event["tid"], event["ts"]) in starts, "an arrow begins and ends at a call"
            flows[event["id"]] += event["ph"]
    assert all(phases[0] == "s" and phases[-1] == "f" and set(phases[1:-1]) <= {"t"} for phases in flows.values())
    return by_phase

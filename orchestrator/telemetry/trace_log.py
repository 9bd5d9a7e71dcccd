"""RUN_DIR/trace: the calls of every step, one JSON object a line in step-000001.jsonl and so on.

A file holds the calls that ended after the step before was written down; times are seconds since 1970. A step keeps
at most `MAX_SPANS` calls; a last line {"dropped": n} says how many more there were.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.events import CallBegan
from sdpo.files import write_atomically
from sdpo.run_layout import step_file, step_files, step_of

MAX_SPANS = 20_000
"""About 3 MB a step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """One call that ended. Times are seconds of the monotonic clock."""

    call: CallBegan
    start_s: float
    end_s: float
    failed: bool


class TraceLog:
    """Collects spans and writes them step by step; on resuming, files of later steps are removed first."""

    def __init__(self, folder: Path, *, resumed_steps: int, wall_minus_clock_s: float) -> None:
        """`wall_minus_clock_s` is added to the monotonic times of spans, which gives seconds since 1970."""
        self._folder, self._shift_s = folder, wall_minus_clock_s
        self._spans = list[Span]()
        self._dropped = 0
        self._newest: Path | None = None
        for file in step_files(folder):
            if resumed_steps == 0 or step_of(file) > resumed_steps:
                file.unlink()

    def add(self, span: Span) -> None:
        """Keep a call that ended."""
        if len(self._spans) < MAX_SPANS:
            self._spans.append(span)
        else:
            self._dropped += 1

    def write(self, step: int) -> None:
        """Write the calls that ended since the last step as the trace of `step`."""
        self._newest = step_file(self._folder, step)
        self._newest.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self._newest, self._take())

    def close(self) -> None:
        """Append the calls that ended after the last step to its file."""
        if self._newest is not None and self._spans:
            write_atomically(self._newest, self._newest.read_text(encoding="utf-8") + self._take())

    def _take(self) -> str:
        spans, self._spans = self._spans, []
        dropped, self._dropped = self._dropped, 0
        lines = [json.dumps(self._row(span)) for span in spans]
        if dropped:
            lines.append(json.dumps({"dropped": dropped}))
        return "".join(line + "\n" for line in lines)

    def _row(self, span: Span) -> dict[str, Any]:
        row: dict[str, Any] = {
            "actor": span.call.actor,
            "call": span.call.call,
            "stage": span.call.stage,
            "start": round(span.start_s + self._shift_s, 6),
            "end": round(span.end_s + self._shift_s, 6),
        }
        known = {"step": span.call.step, "task": span.call.task, "failed": span.failed or None}
        return row | {key: value for key, value in known.items() if value is not None}


def read_trace(folder: Path, first: int = 0, last: int | None = None) -> Iterator[dict[str, Any]]:
    """Yield the rows of the steps from `first` to `last`, both included, in the order in which they were written."""
    for file in step_files(folder):
        if first <= step_of(file) and (last is None or step_of(file) <= last):
            with file.open(encoding="utf-8") as lines:
                yield from (json.loads(line) for line in lines)

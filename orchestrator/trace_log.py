"""RUN_DIR/trace: the spans of every step, one JSON object a line in step-000001.jsonl and so on.

A file holds the calls that ended after the step before was written down; times are seconds since 1970. A step keeps
at most `MAX_SPANS` calls; a last line {"dropped": n} says how many more there were.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from orchestrator.spans import Span
from sdpo.files import write_atomically

MAX_SPANS = 20_000
"""About 3 MB a step."""


class TraceLog:
    """Collects spans and writes them step by step; on resuming, files of later steps are removed first."""

    def __init__(self, folder: Path, *, resumed_steps: int, wall_minus_clock_s: float) -> None:
        """`wall_minus_clock_s`: what turns times of spans into seconds since 1970."""
        self._folder, self._shift_s = folder, wall_minus_clock_s
        self._spans = list[Span]()
        self._dropped = 0
        self._newest: Path | None = None
        for file in trace_files(folder):
            if resumed_steps == 0 or step_of(file) > resumed_steps:
                file.unlink()

    def add(self, span: Span) -> None:
        """One more call has ended."""
        if len(self._spans) < MAX_SPANS:
            self._spans.append(span)
        else:
            self._dropped += 1

    def write(self, step: int) -> None:
        """What has ended up to now belongs to `step`."""
        self._newest = self._folder / f"step-{step:06d}.jsonl"
        self._newest.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self._newest, self._take())

    def close(self) -> None:
        """What ended after the last step joins it."""
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
            "actor": span.actor,
            "call": span.call,
            "stage": span.stage,
            "start": round(span.start_s + self._shift_s, 6),
            "end": round(span.end_s + self._shift_s, 6),
        }
        known = {"step": span.step, "task": span.task, "failed": span.failed or None}
        return row | {key: value for key, value in known.items() if value is not None}


def trace_files(folder: Path) -> list[Path]:
    """The files of a trace folder by step."""
    return sorted(folder.glob("step-*.jsonl"))


def step_of(file: Path) -> int:
    """The step in a trace file's name."""
    return int(file.stem.removeprefix("step-"))


def read_trace(folder: Path, first: int = 0, last: int | None = None) -> Iterator[dict[str, Any]]:
    """Rows of the steps from `first` to `last`, both included, in the order in which they were written."""
    for file in trace_files(folder):
        if first <= step_of(file) and (last is None or step_of(file) <= last):
            with file.open(encoding="utf-8") as lines:
                yield from (json.loads(line) for line in lines)

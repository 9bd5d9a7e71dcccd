"""Progress of an evaluation on standard error: a bar on a terminal, else a line now and then."""

import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from orchestrator.evaluation import Judged

LINE_EVERY_S = 30.0


class EvalProgress:
    """Counts samples as they are judged. A context manager."""

    def __init__(self, num_samples: int) -> None:
        self._num_samples = num_samples
        self._done = self._passed = self._lost = self._tokens = 0
        self._began_s = self._said_s = time.monotonic()
        self._bar: Progress | None = None
        self._task = TaskID(0)
        if sys.stderr.isatty():
            columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self._task = self._bar.add_task("", total=num_samples)

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()

    def judged(self, judged: Judged) -> None:
        """One more sample is there."""
        self._done += 1
        self._passed += judged.verdict.success
        self._lost += judged.verdict.infrastructure_error is not None
        self._tokens += judged.header.num_model_tokens
        now_s = time.monotonic()
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done, description=self._words(now_s))
        elif now_s - self._said_s >= LINE_EVERY_S:
            self._said_s = now_s
            print(f"{self._done} of {self._num_samples} samples  {self._words(now_s)}", file=sys.stderr, flush=True)

    def _words(self, now_s: float) -> str:
        lost = f"  lost {self._lost}" if self._lost else ""
        share = self._passed / max(1, self._done - self._lost)
        return f"passed {share:.3f}{lost}  {self._tokens / max(0.001, now_s - self._began_s):.0f} tokens/s"

"""Progress of an evaluation on standard error: a bar on a terminal, else a line every 30 seconds."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from orchestrator.events import AttemptJudged, Event, listening

LINE_EVERY_S = 30.0


@contextmanager
def eval_progress(num_samples: int) -> Iterator[None]:
    """Show the attempts that are judged inside the block, of `num_samples` in all."""
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
    bar = Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())
    with bar, listening(_Counter(num_samples, bar).hear):
        yield


class _Counter:
    """Counts judged attempts, and shows the counts on `bar`, or as lines where the bar is disabled."""

    def __init__(self, num_samples: int, bar: Progress) -> None:
        self._num_samples, self._bar = num_samples, bar
        self._task = bar.add_task("", total=num_samples)
        self._done = self._passed = self._lost = self._tokens = 0
        self._began_s = self._line_s = time.monotonic()

    def hear(self, event: Event) -> None:
        """Count a judged attempt; other events are ignored."""
        if not isinstance(event, AttemptJudged):
            return
        self._done += 1
        self._passed += event.verdict.success
        self._lost += event.verdict.infrastructure_error is not None
        self._tokens += event.header.num_model_tokens
        now_s = time.monotonic()
        self._bar.update(self._task, completed=self._done, description=self._description(now_s))
        if self._bar.disable and now_s - self._line_s >= LINE_EVERY_S:
            self._line_s = now_s
            print(
                f"{self._done} of {self._num_samples} samples  {self._description(now_s)}", file=sys.stderr, flush=True
            )

    def _description(self, now_s: float) -> str:
        lost = f"  lost {self._lost}" if self._lost else ""
        share = self._passed / max(1, self._done - self._lost)
        return f"passed {share:.3f}{lost}  {self._tokens / max(0.001, now_s - self._began_s):.0f} tokens/s"

"""Live progress: the loop tells what happens in a few places; a terminal shows a display, anything else gets lines.

Everything that the driver says to a person goes through `say`, so that no line tears the display. Nothing here can
end a run: what cannot be drawn or written is left out, and the run says so once.
"""

import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TextIO, cast

from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from orchestrator.outlet import Outlet
from orchestrator.progress_state import RunState, Stage
from orchestrator.progress_view import picture, step_line
from sdpo.config import RunConfig
from sdpo.log_line import about

log = logging.getLogger(__name__)

REFRESHES_PER_S = 2


class Progress:
    """Hears of a run and says nothing: for parts that are used outside of one."""

    def begin(self, steps_done: int, records: list[dict[str, Any]]) -> None:
        """An incarnation begins after so many steps, which `records` of metrics.jsonl describe."""

    def enter(self, stage: Stage, expected: int = 0) -> None:
        """The driver goes over to `stage`, of `expected` units if they are counted."""

    def add(self, stage: Stage, batch: int | None = None) -> None:
        """One more attempt or group of a batch (from 0), or one more sample of the evaluation, has passed `stage`."""

    def step_done(self, step: int, metrics: Mapping[str, float]) -> None:
        """A step's metrics are complete; 0: what was measured before the first."""

    def say(self, line: str) -> None:
        """Tell a person."""


NOBODY = Progress()


class Lines(Progress):
    """Plain lines, one a step, for logs and pipes."""

    def __init__(self, config: RunConfig, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._outlet, self._state = Outlet(stream), RunState(config, clock)

    def begin(self, steps_done: int, records: list[dict[str, Any]]) -> None:
        self._state.begin(steps_done, records)

    def enter(self, stage: Stage, expected: int = 0) -> None:
        self._state.enter(stage, expected)

    def add(self, stage: Stage, batch: int | None = None) -> None:
        self._state.add(stage, batch)

    def step_done(self, step: int, metrics: Mapping[str, float]) -> None:
        self._state.step_done(step, metrics)
        with about(step=step):
            self.say(step_line(self._state, step, metrics))

    def say(self, line: str) -> None:
        log.info("%s", line)
        self._outlet.write(line + "\n")
        self._outlet.flush()


class Screen(Lines):
    """A display at the bottom of a terminal; lines stay above it. Of the steps, those that were evaluated have one."""

    def __init__(
        self,
        config: RunConfig,
        stream: TextIO,
        clock: Callable[[], float] = time.monotonic,
        *,
        width: int | None = None,
        auto_refresh: bool = True,
    ) -> None:
        """`width` in characters: None asks the terminal."""
        super().__init__(config, stream, clock)
        self.console = Console(file=cast("TextIO", self._outlet), force_terminal=True, width=width, highlight=False)
        self.live = Live(
            console=self.console,
            get_renderable=self._draw,
            auto_refresh=auto_refresh,
            refresh_per_second=REFRESHES_PER_S,
            transient=True,
            redirect_stderr=sys.stderr is not None and sys.stderr.isatty(),
        )

    def step_done(self, step: int, metrics: Mapping[str, float]) -> None:
        self._state.step_done(step, metrics)
        line = step_line(self._state, step, metrics)
        with about(step=step):
            if step == 0 or "heldout/pass@1" in metrics:
                self.say(line)
            else:
                log.info("%s", line)

    def say(self, line: str) -> None:
        log.info("%s", line)
        self.console.print(Text(line), soft_wrap=True)

    def _draw(self) -> RenderableType:
        try:
            return picture(self._state)
        except Exception as error:  # a display that cannot be drawn must not end the run, nor hide what is said above
            return Text(f"(no display: {type(error).__name__}: {error}; the run goes on)")


@contextmanager
def open_progress(config: RunConfig) -> Iterator[Progress]:
    """A display where standard output is a terminal that can show one, else lines; the terminal is clean at the end."""
    if not _is_screen(sys.stdout):
        yield NOBODY if sys.stdout is None else Lines(config, sys.stdout)
        return
    screen = Screen(config, sys.stdout)
    screen.live.start(refresh=True)  # the first drawing is this thread's: two at once would stand there twice
    try:
        with _logging_above():
            yield screen
    finally:
        screen.live.stop()


def _is_screen(stream: TextIO | None) -> bool:
    return stream is not None and stream.isatty() and not Console(file=stream).is_dumb_terminal


@contextmanager
def _logging_above() -> Iterator[None]:
    """While the display is there, log lines to the terminal go through it: the handlers hold the former stderr."""
    handlers = [h for h in logging.getLogger().handlers if isinstance(h, logging.StreamHandler)]
    former = [(h, h.stream) for h in handlers if h.stream in (sys.__stderr__, sys.__stdout__) and h.stream.isatty()]
    for handler, _ in former:
        handler.setStream(sys.stderr)
    try:
        yield
    finally:
        for handler, stream in former:
            handler.setStream(stream)

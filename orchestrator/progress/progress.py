"""Live progress of a run: a display on a terminal, plain lines anywhere else.

Every line that the driver prints for the user goes through `say`, so that no line tears the display. Nothing here can
end a run: a display that cannot be drawn is replaced by the error, and output that cannot be written is dropped with
one line on standard error.
"""

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO, cast

from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from orchestrator.events import AlarmRaised, Event, Message, StepRecorded, listening
from orchestrator.progress.safe_output import SafeOutput
from orchestrator.progress.state import RunState
from orchestrator.progress.view import picture, step_line
from sdpo.config import RunConfig
from sdpo.log_line import log_context

log = logging.getLogger(__name__)

REFRESHES_PER_S = 2


class Lines:
    """Plain lines, one a step, for logs and pipes."""

    def __init__(self, config: RunConfig, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._output, self.state = SafeOutput(stream), RunState(config, clock)

    def hear(self, event: Event) -> None:
        """Follow the run; print messages, alarms and recorded steps."""
        self.state.hear(event)
        match event:
            case StepRecorded():
                with log_context(step=event.step):
                    self._step(step_line(self.state, event.step, event.metrics), event)
            case AlarmRaised(alarm=alarm):
                self.say(f"ALARM {alarm.name} at step {alarm.step}: {alarm.message}")
            case Message():
                self.say(event.text)

    def say(self, line: str) -> None:
        """Print a line for the user and log it."""
        log.info("%s", line)
        self._output.write(line + "\n")
        self._output.flush()

    def _step(self, line: str, event: StepRecorded) -> None:
        self.say(line)


class Screen(Lines):
    """A display at the bottom of a terminal; messages, alarms and the steps that were evaluated are lines above it."""

    def __init__(
        self,
        config: RunConfig,
        stream: TextIO,
        clock: Callable[[], float] = time.monotonic,
        *,
        width: int | None = None,
        auto_refresh: bool = True,
    ) -> None:
        """`width` is in characters; None asks the terminal."""
        super().__init__(config, stream, clock)
        self.console = Console(file=cast("TextIO", self._output), force_terminal=True, width=width, highlight=False)
        self.live = Live(
            console=self.console,
            get_renderable=self._draw,
            auto_refresh=auto_refresh,
            refresh_per_second=REFRESHES_PER_S,
            transient=True,
            redirect_stderr=sys.stderr is not None and sys.stderr.isatty(),
        )

    def say(self, line: str) -> None:
        log.info("%s", line)
        self.console.print(Text(line), soft_wrap=True)

    def _step(self, line: str, event: StepRecorded) -> None:
        if event.step == 0 or "heldout/pass@1" in event.metrics:
            self.say(line)
        else:
            log.info("%s", line)

    def _draw(self) -> RenderableType:
        try:
            return picture(self.state)
        except Exception as error:  # a display that cannot be drawn must not end the run, nor hide what is said above
            return Text(f"(no display: {type(error).__name__}: {error}; the run goes on)")


@contextmanager
def open_progress(config: RunConfig) -> Iterator[Lines | None]:
    """Show the events of the block: a display where standard output is a terminal that can show one, else lines.

    The terminal is clean at the end. Without a standard output nothing is shown.
    """
    if sys.stdout is None:
        yield None
    elif not _is_screen(sys.stdout):
        lines = Lines(config, sys.stdout)
        with listening(lines.hear):
            yield lines
    else:
        screen = Screen(config, sys.stdout)
        screen.live.start(refresh=True)  # draw first from this thread: two first drawings would both stay on the screen
        try:
            with _logging_above(), listening(screen.hear):
                yield screen
        finally:
            screen.live.stop()


def _is_screen(stream: TextIO) -> bool:
    return stream.isatty() and not Console(file=stream).is_dumb_terminal


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

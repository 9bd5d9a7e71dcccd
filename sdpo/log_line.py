"""The lines of a run's logs: one event each, in the same form from every process; sorted as text, they are by time.

`2026-11-23T03:20:26.123456Z WARNING env-3-r1 step=3 task=mbpp/11 | the sandbox broke: no space left`
"""

import json
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime

from sdpo.secrets import hide_secrets

PACKAGES = ("sdpo", "rollout_workers", "env_workers", "learner", "orchestrator")
"""Packages of this project; lines of other loggers carry the logger's name."""

_TEXT = r'"(?:[^"\\]|\\.)*"|[^\s"|]+'
_LINE = re.compile(
    r"(?P<time>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z) (?P<level>[A-Z]+) (?P<actor>\S+)"
    rf"(?: step=(?P<step>\d+))?(?: task=(?P<task>{_TEXT}))? \| (?P<message>.*)"
)
_ESCAPES = {"\\": "\\\\", "\n": "\\n", "\r": "\\r"}
_MEANT = {escaped: meant for meant, escaped in _ESCAPES.items()}
_log_context: ContextVar[tuple[int | None, str | None]] = ContextVar("sdpo_log_context", default=(None, None))


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One log event. `time` is UTC with microseconds, as in the line; `message` may have several lines."""

    time: str
    level: str
    actor: str
    message: str
    step: int | None = None
    task: str | None = None

    def __str__(self) -> str:
        step = "" if self.step is None else f" step={self.step}"
        task = "" if self.task is None else f" task={_quoted(self.task)}"
        message = re.sub(r"[\\\n\r]", lambda found: _ESCAPES[found[0]], self.message)
        return f"{self.time} {self.level} {self.actor}{step}{task} | {message}"


def parse(line: str) -> Event | None:
    """Return the event of a line, None for a line of another form."""
    found = _LINE.fullmatch(line.rstrip("\n"))
    if found is None:
        return None
    step, task = found["step"], found["task"]
    return Event(
        time=found["time"],
        level=found["level"],
        actor=found["actor"],
        message=re.sub(r"\\[\\nr]", lambda escaped: _MEANT[escaped[0]], found["message"]),
        step=None if step is None else int(step),
        task=json.loads(task) if task is not None and task.startswith('"') else task,
    )


@contextmanager
def log_context(*, step: int | None = None, task: str | None = None) -> Iterator[None]:
    """Lines that this thread or asyncio task logs inside carry the step (counted from 1) and the task's id."""
    before = _log_context.get()
    set_log_context(step=step, task=task)
    try:
        yield
    finally:
        _log_context.set(before)


def set_log_context(*, step: int | None = None, task: str | None = None) -> None:
    """As `log_context`, until the end of this asyncio task and in tasks that it makes; None keeps the old value."""
    outer_step, outer_task = _log_context.get()
    _log_context.set((outer_step if step is None else step, outer_task if task is None else task))


def text_of_time(seconds: float) -> str:
    """Return the time of an `Event` for `seconds` since 1970."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class LineFormatter(logging.Formatter):
    """Formats records as lines without secrets; `step` and `task` of a record (`extra`) override the context's."""

    def __init__(self, actor: str) -> None:
        super().__init__()
        self._actor = actor

    def format(self, record: logging.LogRecord) -> str:
        step, task = _log_context.get()
        message = hide_secrets(super().format(record))
        return str(
            Event(
                time=text_of_time(record.created),
                level=record.levelname,
                actor=self._actor,
                message=message if record.name.split(".")[0] in PACKAGES else f"{record.name}: {message}",
                step=getattr(record, "step", step),
                task=getattr(record, "task", task),
            )
        )


def _quoted(text: str) -> str:
    return text if re.fullmatch(r'[^\s"|]+', text) else json.dumps(text)

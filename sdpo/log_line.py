"""A line of a run's logs: one event, the same form from every process, sorted by time when sorted as text.

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

ROOMS = ("sdpo", "rollout_workers", "env_workers", "learner", "orchestrator")
"""Loggers of this project; lines of others carry their logger's name."""

_TEXT = r'"(?:[^"\\]|\\.)*"|[^\s"|]+'
_LINE = re.compile(
    r"(?P<time>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z) (?P<level>[A-Z]+) (?P<actor>\S+)"
    rf"(?: step=(?P<step>\d+))?(?: task=(?P<task>{_TEXT}))? \| (?P<message>.*)"
)
_ESCAPES = {"\\": "\\\\", "\n": "\\n", "\r": "\\r"}
_MEANT = {escaped: meant for meant, escaped in _ESCAPES.items()}
_about: ContextVar[tuple[int | None, str | None]] = ContextVar("sdpo_about", default=(None, None))


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """`time`: UTC with microseconds, as in the line. `message` may have several lines."""

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
    """The event of a line; None for a line of another form."""
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
def about(*, step: int | None = None, task: str | None = None) -> Iterator[None]:
    """Lines that are logged inside, by this thread or asyncio task, carry the step (from 1) and the task's id."""
    before = _about.get()
    from_now_on_about(step=step, task=task)
    try:
        yield
    finally:
        _about.set(before)


def from_now_on_about(*, step: int | None = None, task: str | None = None) -> None:
    """As `about`, to the end of this asyncio task and in those that it makes; None keeps what was."""
    outer_step, outer_task = _about.get()
    _about.set((outer_step if step is None else step, outer_task if task is None else task))


def text_of_time(seconds: float) -> str:
    """As an `Event` has it; `seconds` since 1970."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def step_of(attempt: str) -> int | None:
    """The step that trains on an attempt, from its name (`train-2/mbpp/11/0/0`: 3); None for one of an evaluation."""
    found = re.match(r"train-(\d+)/", attempt)
    return None if found is None else int(found[1]) + 1


class LineFormatter(logging.Formatter):
    """Lines of records, without secrets; a record's `step` and `task` (from `extra`) go before those of `about`."""

    def __init__(self, actor: str) -> None:
        super().__init__()
        self._actor = actor

    def format(self, record: logging.LogRecord) -> str:
        step, task = _about.get()
        message = hide_secrets(super().format(record))
        return str(
            Event(
                time=text_of_time(record.created),
                level=record.levelname,
                actor=self._actor,
                message=message if record.name.split(".")[0] in ROOMS else f"{record.name}: {message}",
                step=getattr(record, "step", step),
                task=getattr(record, "task", task),
            )
        )


def _quoted(text: str) -> str:
    return text if re.fullmatch(r'[^\s"|]+', text) else json.dumps(text)

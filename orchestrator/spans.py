"""Spans: every call of an actor by the driver, from when to when, in which stage, for which step and task.

`waits.within` opens them; whoever drives a step says `about(step=…)`. Where nobody listens they cost a look-up.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Protocol

from sdpo.log_line import from_now_on_about
from sdpo.telemetry.labels import ROLES

STAGE_OF = {
    "generate": "generate",
    "generate_batch": "generate",
    "extend": "generate",
    "step": "judge",
    "finish": "judge",
    "recall": "recall",
    "score": "score",
    "reference": "score",
    "train": "train",
    "update_teacher": "train",
    "publish": "publish",
    "begin_update": "publish",
    "receive_bucket": "publish",
    "finish_update": "publish",
    "send_direct": "publish",
    "save": "save",
    "export": "save",
    "start": "start",
    "ready": "start",
    "setup": "start",
}
"""The stage that a call belongs to, by the call's name. Calls that are not here (counts, ping) leave no span."""
OF_MANY_TASKS = ("generate_batch",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """One call. Times are seconds of the monotonic clock; `step` and `task` are None where it is not for one."""

    actor: str
    call: str
    stage: str
    start_s: float
    end_s: float
    step: int | None = None
    task: str | None = None
    failed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Matter:
    """What the calls of a context are about. `stage`: that of all calls for attempts, for example evaluate."""

    step: int | None = None
    task: str | None = None
    stage: str | None = None


class Listener(Protocol):
    """Hears of calls. `begin` gives whatever `end` is to be given back."""

    def begin(self, actor: str, call: str, stage: str, matter: Matter) -> object: ...

    def end(self, token: object, *, failed: bool) -> None: ...


_matter: ContextVar[Matter] = ContextVar("matter", default=Matter())  # noqa: B039, frozen
_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


def current_listener() -> Listener | None:
    """Who hears of this context's calls."""
    return _listener.get()


def listen(listener: Listener | None) -> None:
    """From now on in this context, and in the tasks that are made in it."""
    _listener.set(listener)


def about(*, step: int | None = None, task: str | None = None, stage: str | None = None) -> None:
    """What calls and log lines from now on are about, in this context and in the tasks that are made in it; None keeps
    what was.
    """
    was = _matter.get()
    _matter.set(Matter(step=was.step if step is None else step, task=task or was.task, stage=stage or was.stage))
    from_now_on_about(step=step, task=task)


@contextmanager
def during(stage: str) -> Iterator[None]:
    """Calls for attempts belong to `stage` within the block."""
    before = _matter.set(replace(_matter.get(), stage=stage))
    try:
        yield
    finally:
        _matter.reset(before)


@contextmanager
def calling(actor: str, call: str) -> Iterator[None]:
    """A span around a call of an actor; none where nobody listens or the call belongs to no stage."""
    listener, stage = _listener.get(), STAGE_OF.get(call)
    if listener is None or stage is None or role_of(actor) not in ROLES:
        yield
        return
    matter = _matter.get()
    if stage in ("generate", "judge") and matter.stage is not None:
        stage = matter.stage
    if call in OF_MANY_TASKS or stage in ("publish", "start", "save", "train"):
        matter = replace(matter, task=None)
    token = listener.begin(actor, call, stage, matter)
    failed = True
    try:
        yield
        failed = False
    finally:
        listener.end(token, failed=failed)


def role_of(actor: str) -> str:
    """learner of learner-rank0, env of env-3-r1."""
    return actor.partition("-")[0]

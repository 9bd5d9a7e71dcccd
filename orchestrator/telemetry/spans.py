"""Calls of actors by the driver: which stage, step and task each of them is for.

`deadlines.with_deadline` wraps every call in `calling`, which emits its begin and its end; the code that drives a step
names it with `bind_context(step=…)`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace

from orchestrator.events import CallBegan, CallEnded, emit
from sdpo.log_line import set_log_context
from sdpo.telemetry.labels import ROLES

STAGE_OF = {
    "generate": "generate",
    "generate_batch": "generate",
    "extend": "generate",
    "step": "judge",
    "finish": "judge",
    "compute_old_log_probs": "old_log_probs",
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
"""The stage that a call belongs to, by the call's name. Calls that are not here (counts, ping) are not counted."""
OF_MANY_TASKS = ("generate_batch",)


@dataclass(frozen=True, slots=True, kw_only=True)
class CallContext:
    """What the calls of a context are for. `stage` is the stage of all calls for attempts, for example evaluate."""

    step: int | None = None
    task: str | None = None
    stage: str | None = None


_context: ContextVar[CallContext] = ContextVar("call_context", default=CallContext())  # noqa: B039, frozen


def bind_context(*, step: int | None = None, task: str | None = None, stage: str | None = None) -> None:
    """Set what later calls and log lines are for, in this context and in the tasks that are made in it.

    None leaves a value as it was.
    """
    old = _context.get()
    _context.set(CallContext(step=old.step if step is None else step, task=task or old.task, stage=stage or old.stage))
    set_log_context(step=step, task=task)


@contextmanager
def during(stage: str) -> Iterator[None]:
    """Count calls for attempts as calls of `stage` within the block."""
    token = _context.set(replace(_context.get(), stage=stage))
    try:
        yield
    finally:
        _context.reset(token)


@contextmanager
def calling(actor: str, call: str) -> Iterator[None]:
    """Emit `CallBegan` and `CallEnded` around a call of an actor; nothing for a call that belongs to no stage."""
    stage = STAGE_OF.get(call)
    if stage is None or role_of(actor) not in ROLES:
        yield
        return
    context = _context.get()
    if stage in ("generate", "judge") and context.stage is not None:
        stage = context.stage
    is_for_many_tasks = call in OF_MANY_TASKS or stage in ("publish", "start", "save", "train")
    task = None if is_for_many_tasks else context.task
    began = CallBegan(actor=actor, call=call, stage=stage, step=context.step, task=task)
    emit(began)
    failed = True
    try:
        yield
        failed = False
    finally:
        emit(CallEnded(began=began, failed=failed))


def role_of(actor: str) -> str:
    """Return the role in an actor's name: learner of learner-rank0, env of env-3-r1."""
    return actor.partition("-")[0]

"""Checks what a user's own environment returns or raises, and reports a mistake in one line.

A broken sandbox or a broken judge never becomes a reward. A broken sandbox leads to another attempt; a broken judge
stops the run, with the environment, the task and the exception.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from numbers import Real
from typing import Any

import numpy as np

from env_workers.environment import BUILT_IN, Observation, SandboxViolation
from sdpo.errors import EnvironmentFault, InfrastructureError, UserError
from sdpo.own_code import describe
from sdpo.show import show
from sdpo.types import Message, Task, Verdict

LONGEST_KIND_CHARS = 64
_KIND = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*")


@contextmanager
def of_environment(task: Task, activity: str) -> Iterator[None]:
    """Wrap every call into an environment. `activity` is the method's name, for the message.

    What a user's own environment raises becomes an EnvironmentFault, SystemExit included. Errors of `sdpo.errors`
    pass: InfrastructureError is for what broke outside (a judge service that does not answer).
    """
    try:
        yield
    except (UserError, InfrastructureError, SandboxViolation):
        raise
    except (Exception, SystemExit) as error:
        if task.environment in BUILT_IN:
            raise
        raise EnvironmentFault(_message(task, f"{activity} raised {describe(error)}")) from error


def checked(task: Task, answer: Any, role: str | None, activity: str) -> Observation | Verdict:
    """Return the answer of an environment, rewards as floats. `role`: its `observation_role`.

    A verdict that leaves `success` out keeps it so: see `with_success`.

    Raises EnvironmentFault, which names what is wrong, for anything but a whole Verdict, or an Observation where there
    is a role.
    """
    if isinstance(answer, Verdict):
        return _checked_verdict(task, answer, activity)
    if isinstance(answer, Observation) and role is not None:
        return _checked_observation(task, answer, role, activity)
    allowed = "a Verdict" if role is None else "a Verdict or an Observation"
    hint = "; set observation_role to give observations" if isinstance(answer, Observation) else ""
    raise _wrong(task, activity, "", type(answer).__name__, allowed + hint)


def with_success(verdict: Verdict, threshold: float) -> Verdict:
    """Return the verdict with a success: its own, or else whether its reward is at least `threshold`."""
    if verdict.success is not None:
        return verdict
    return replace(verdict, success=verdict.reward is not None and verdict.reward >= threshold)


def _checked_verdict(task: Task, verdict: Verdict, activity: str) -> Verdict:
    broken = verdict.infrastructure_error
    if broken is not None:
        if not isinstance(broken, str) or not broken.strip():
            raise _wrong(task, activity, "infrastructure_error", show(broken), "none, or what broke")
        if verdict.reward is not None:
            raise _wrong(task, activity, "reward", show(verdict.reward), "none, with an infrastructure_error")
        return verdict
    reward = verdict.reward
    if not isinstance(reward, Real | np.bool_) or not math.isfinite(float(reward)):
        raise _wrong(task, activity, "reward", _shown(reward), "a finite number")
    if verdict.success is not None and not isinstance(verdict.success, bool | np.bool_):
        raise _wrong(task, activity, "success", _shown(verdict.success), "true, false; or left out")
    kind = verdict.kind
    if not isinstance(kind, str) or not _KIND.fullmatch(kind) or len(kind) > LONGEST_KIND_CHARS:
        allowed = f"a name such as wrong_answer: letters, digits, _ . -, at most {LONGEST_KIND_CHARS} characters"
        raise _wrong(task, activity, "kind", _shown(kind), allowed)
    if not isinstance(verdict.feedback, str):
        raise _wrong(task, activity, "feedback", _shown(verdict.feedback), 'a string, "" to say nothing')
    if not _is_json(verdict.details):
        raise _wrong(task, activity, "details", f"{verdict.details!r:.80}", "a mapping that JSON can hold")
    success = verdict.success if verdict.success is None else bool(verdict.success)
    return replace(verdict, reward=float(reward), success=success)


def _checked_observation(task: Task, observation: Observation, role: str, activity: str) -> Observation:
    messages = observation.messages
    if not isinstance(messages, tuple) or not messages:
        raise _wrong(task, activity, "messages", _shown(messages), "a tuple of at least one Message")
    for message in messages:
        if (
            not isinstance(message, Message)
            or message.role not in (role, "user")
            or not isinstance(message.content, str)
        ):
            raise _wrong(
                task,
                activity,
                "messages",
                _shown(message),
                f"Messages of role user, or of role {role}, its observation_role",
            )
    return observation


def _is_json(details: Any) -> bool:
    try:
        json.dumps(dict(details))
    except (TypeError, ValueError, RecursionError):
        return False
    return isinstance(details, Mapping)


def _shown(value: Any) -> str:
    return f"{show(value)} ({type(value).__name__})"


def _wrong(task: Task, activity: str, key: str, value: str, allowed: str) -> EnvironmentFault:
    return EnvironmentFault(_message(task, f"{activity} gave {f'{key}=' if key else ''}{value}: allowed: {allowed}"))


def _message(task: Task, what: str) -> str:
    return f"environment {task.environment}, task {show(task.id)}: {what}"

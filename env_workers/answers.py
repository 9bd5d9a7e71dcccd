"""What an environment of a user's own may do wrong, found where it happens and told in one line.

A broken sandbox is nobody's verdict; a broken judge is its author's to mend: no reward is made of either, and the run
stops at the second with the environment, the task and the exception.
"""

import json
import math
import sysconfig
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np

from env_workers.environment import BUILT_IN, Observation, SandboxViolation
from sdpo.errors import EnvironmentFault, InfrastructureError, UserError
from sdpo.show import show
from sdpo.types import Message, Task, Verdict

LONGEST_KIND_CHARS = 64
_NOT_THEIRS = (str(Path(__file__).parent), *(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")))


@contextmanager
def of_environment(task: Task, doing: str) -> Iterator[None]:
    """Around every call into an environment. `doing` is the method's name, for the message.

    What an environment of the user's own raises becomes an EnvironmentFault, SystemExit included. Errors of this
    project's vocabulary pass: InfrastructureError is for what broke outside (a judge service that does not answer).
    """
    try:
        yield
    except (UserError, InfrastructureError, SandboxViolation):
        raise
    except (Exception, SystemExit) as error:
        if task.environment in BUILT_IN:
            raise
        raise EnvironmentFault(_told(task, f"{doing} raised {describe(error)}")) from error


def checked(task: Task, answer: Any, role: str | None, doing: str) -> Observation | Verdict:
    """The answer of an environment, rewards as floats. `role`: its `observation_role`.

    Raises EnvironmentFault, which names what is wrong, for anything but a whole Verdict, or an Observation where there
    is a role.
    """
    if isinstance(answer, Verdict):
        return _checked_verdict(task, answer, doing)
    if isinstance(answer, Observation) and role is not None:
        return _checked_observation(task, answer, role, doing)
    allowed = "a Verdict" if role is None else "a Verdict or an Observation"
    hint = "; set observation_role to give observations" if isinstance(answer, Observation) else ""
    raise _wrong(task, doing, "", type(answer).__name__, allowed + hint)


def describe(error: BaseException) -> str:
    """`ValueError: no such riddle (riddles.py, line 12, in judge)`: the innermost line of the user's own files."""
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [frame for frame in frames if not frame.filename.startswith(_NOT_THEIRS)]
    place = f" ({Path(theirs[-1].filename).name}, line {theirs[-1].lineno}, in {theirs[-1].name})" if theirs else ""
    return f"{' '.join(f'{type(error).__name__}: {error}'.split())[:300]}{place}"


def _checked_verdict(task: Task, verdict: Verdict, doing: str) -> Verdict:
    broken = verdict.infrastructure_error
    if broken is not None:
        if not isinstance(broken, str) or not broken.strip():
            raise _wrong(task, doing, "infrastructure_error", show(broken), "none, or what broke")
        if verdict.reward is not None:
            raise _wrong(task, doing, "reward", show(verdict.reward), "none, with an infrastructure_error")
        return verdict
    reward = verdict.reward
    if not isinstance(reward, Real | np.bool_) or not math.isfinite(float(reward)):
        raise _wrong(task, doing, "reward", _shown(reward), "a finite number")
    if not isinstance(verdict.success, bool | np.bool_):
        raise _wrong(task, doing, "success", _shown(verdict.success), "true, false")
    kind = verdict.kind
    if not isinstance(kind, str) or not kind.strip() or not kind.isprintable() or len(kind) > LONGEST_KIND_CHARS:
        raise _wrong(task, doing, "kind", _shown(kind), f"a name of at most {LONGEST_KIND_CHARS} characters")
    if not isinstance(verdict.feedback, str):
        raise _wrong(task, doing, "feedback", _shown(verdict.feedback), 'a string, "" to say nothing')
    if not _is_json(verdict.details):
        raise _wrong(task, doing, "details", f"{verdict.details!r:.80}", "a mapping that JSON can hold")
    return replace(verdict, reward=float(reward), success=bool(verdict.success))


def _checked_observation(task: Task, observation: Observation, role: str, doing: str) -> Observation:
    messages = observation.messages
    if not isinstance(messages, tuple) or not messages:
        raise _wrong(task, doing, "messages", _shown(messages), "a tuple of at least one Message")
    for message in messages:
        if not isinstance(message, Message) or message.role != role or not isinstance(message.content, str):
            raise _wrong(task, doing, "messages", _shown(message), f"Messages of role {role}, its observation_role")
    return observation


def _is_json(details: Any) -> bool:
    try:
        json.dumps(dict(details))
    except (TypeError, ValueError, RecursionError):
        return False
    return isinstance(details, Mapping)


def _shown(value: Any) -> str:
    return f"{show(value)} ({type(value).__name__})"


def _wrong(task: Task, doing: str, key: str, value: str, allowed: str) -> EnvironmentFault:
    return EnvironmentFault(_told(task, f"{doing} gave {f'{key}=' if key else ''}{value}: allowed: {allowed}"))


def _told(task: Task, what: str) -> str:
    return f"environment {task.environment}, task {show(task.id)}: {what}"

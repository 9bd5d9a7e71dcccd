"""What an environment is: `open(task)` gives a session, `session.step(reply)` an Observation or, at the end, a Verdict.

Tasks name their environment: a built-in one ("code") or "module:Class" of one's own. A class is made once per env
worker with a `Context`; it never sees a broken sandbox as a result, `Context.sandbox` raises InfrastructureError.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any, Protocol

from sdpo.config import EnvConfig
from sdpo.errors import ConfigError, SdpoError
from sdpo.types import Message, Task, Verdict

BUILT_IN: Mapping[str, str] = {"code": "env_workers.code.environment:CodeEnvironment"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What the model said. `truncated`: the response was cut at the length limit."""

    text: str
    truncated: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What the model gets to read before its next turn."""

    messages: tuple[Message, ...]


class SandboxViolation(SdpoError):
    """The program itself breaks every fresh sandbox it is run in. The message says how."""


class Executor(Protocol):
    """Runs programs in whatever sandbox is whole at the moment."""

    def execute(self, source: str, calls: Sequence[Mapping[str, Any]], time_limit_s: float) -> Any:
        """As `Sandbox.execute`. Raises InfrastructureError, or SandboxViolation where the program is to blame."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What an environment may use."""

    config: EnvConfig
    sandbox: Executor


class Session(Protocol):
    """One attempt at one task."""

    def step(self, reply: Reply) -> Observation | Verdict:
        """The world's answer to the model's turn; a Verdict ends the session."""
        ...

    def close(self) -> None:
        """Gives back what the session holds."""
        ...


class Environment(Protocol):
    """Made with a Context; opens any number of sessions, one after another."""

    @classmethod
    def check(cls, task: Task) -> None:
        """Called for every task before a run starts anything. Raises TaskFileError for a payload it cannot use."""
        ...

    def open(self, task: Task) -> Session:
        """Starts an attempt."""
        ...


class SingleTurnEnvironment(ABC):
    """The convenient base for a world that judges the first reply: write `judge`, nothing else."""

    def __init__(self, context: Context) -> None:
        self.context = context

    @classmethod  # noqa: B027
    def check(cls, task: Task) -> None:
        """See `Environment.check`; every payload is accepted unless a subclass says otherwise."""

    @abstractmethod
    def judge(self, task: Task, reply: Reply) -> Verdict:
        """The verdict on the one reply."""

    def open(self, task: Task) -> Session:
        """See `Environment.open`."""
        return _SingleTurn(self, task)


class _SingleTurn:
    def __init__(self, environment: SingleTurnEnvironment, task: Task) -> None:
        self._environment, self._task = environment, task

    def step(self, reply: Reply) -> Verdict:
        return self._environment.judge(self._task, reply)

    def close(self) -> None:
        pass


def check_task(task: Task) -> None:
    """Raises ConfigError for an environment that does not exist, TaskFileError for a payload that it cannot use."""
    _environment_class(task.environment).check(task)


def load_environment(name: str, context: Context) -> Environment:
    """The environment called `name`. Raises ConfigError for one that does not exist."""
    environment: Environment = _environment_class(name)(context)
    return environment


@cache
def _environment_class(name: str) -> Any:
    target = BUILT_IN.get(name, name)
    module_name, colon, class_name = target.partition(":")
    if not colon or not module_name or not class_name:
        allowed = ", ".join(BUILT_IN)
        raise ConfigError(f"environment {name!r} does not exist; allowed: {allowed}, or module:Class of your own")
    try:
        return getattr(import_module(module_name), class_name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"environment {name!r} cannot be imported: {error}") from None

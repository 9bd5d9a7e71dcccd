"""What an environment is: `open(task)` gives a session, `session.step(reply)` an Observation or, at the end, a Verdict.

Tasks name their environment: a built-in one ("code") or "module:Class" of one's own. A class is made once per env
worker with a `Context`; it never sees a broken sandbox as a result, `Context.sandbox` raises InfrastructureError.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any, ClassVar, Literal, Protocol

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
    """What the model gets to read before its next turn. Roles: user, or tool where the chat template has it."""

    messages: tuple[Message, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """A turn that is over: what the model said and what it then got to read."""

    reply: Reply
    observation: Observation


Ending = Literal["turns", "tokens", "time"]
"""Why an attempt of several turns ended before its environment ended it: which of its bounds it reached."""


class SandboxViolation(SdpoError):
    """The program itself breaks every fresh sandbox it is run in. The message says how."""


class Executor(Protocol):
    """Runs programs in whatever sandboxes are whole at the moment; any number of threads may call it."""

    def execute(
        self, source: str, calls: Sequence[Mapping[str, Any]], time_limit_s: float, *, shared: bool = False
    ) -> Any:
        """As `Sandbox.execute`. Raises InfrastructureError, or SandboxViolation where the program is to blame."""
        ...

    def judge_asserts(self, source: str, test: "AssertProgram", time_limit_s: float) -> Any:
        """Runs assert-style tests against a program: the asserts in one sandbox, the program in another.

        As `execute`: one outcome for each assertion group of `test`. The values that pass between them are of the
        runner's closed set of types.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class AssertProgram:
    """Tests as source. `functions` are the program's functions (in the asserts: proxies of those names).

    `source` defines what the asserts need and the `groups`; each group is source of its own that passes or raises.
    """

    functions: tuple[str, ...]
    source: str
    groups: tuple[str, ...]


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

    def end(self, ending: Ending) -> Verdict:
        """The verdict on an attempt that reached a bound after an Observation. Called at most once, last."""
        ...

    def close(self) -> None:
        """Gives back what the session holds."""
        ...


class Environment(Protocol):
    """Made with a Context; opens any number of sessions, side by side.

    A session's answers are a function of the task and of the replies: an attempt whose env worker died is played again
    elsewhere with the same replies. What a program left behind in a sandbox does not outlive a step.
    """

    observation_role: ClassVar[Literal["user", "tool"] | None]
    """Who speaks in its observations, None for a single-turn environment. Checked against the model's chat template."""

    @classmethod
    def check(cls, task: Task) -> None:
        """Called for every task before a run starts anything. Raises TaskFileError for a payload it cannot use."""
        ...

    def open(self, task: Task) -> Session:
        """Starts an attempt."""
        ...


class SingleTurnEnvironment(ABC):
    """The convenient base for a world that judges the first reply: write `judge`, nothing else."""

    observation_role: ClassVar[Literal["user", "tool"] | None] = None

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

    def end(self, ending: Ending) -> Verdict:
        raise AssertionError("a single-turn session ends with its first step")

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

"""What an environment is: `open(task)` gives a session, `session.step(reply)` an Observation or, at the end, a Verdict.

Tasks name their environment: a built-in one ("code") or a user's "module:Class". A class is made once per env worker
with a `Context`. A broken sandbox is never a result: `Context.sandbox` raises InfrastructureError.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

from sdpo.config import EnvConfig
from sdpo.errors import ConfigError, SdpoError, TaskFileError, UserError
from sdpo.own_code import describe, load_own, nearest
from sdpo.show import show
from sdpo.thinking import split_thinking
from sdpo.types import Message, Task, Verdict

BUILT_IN: Mapping[str, str] = {
    "code": "env_workers.code.environment:CodeEnvironment",
    "code_retry": "env_workers.code_retry:CodeRetryEnvironment",
    "multiple_choice": "env_workers.multiple_choice:MultipleChoiceEnvironment",
    "tool_matching": "env_workers.tools.environments:ToolMatchingEnvironment",
    "tools": "env_workers.tools.environments:ToolsEnvironment",
    "tools_native": "env_workers.tools.environments:NativeToolsEnvironment",
    "math": "env_workers.mathematics:MathEnvironment",
    "reasoning_gym": "env_workers.reasoning:ReasoningGymEnvironment",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What the model said, made of the words that it wrote: `text` becomes the words after its thinking.

    `thinking` holds the rest of what it wrote, the tags included (see `sdpo.thinking`). `in_thinking`: the chat
    template had opened the block in the prompt, so that a reply without `</think>` is thinking as a whole.
    `truncated`: the response was cut at the length limit.
    """

    text: str
    truncated: bool = False
    in_thinking: bool = False
    thinking: str = ""

    def __post_init__(self) -> None:
        if self.thinking:
            return
        parts = split_thinking(self.text, in_thinking=self.in_thinking)
        object.__setattr__(self, "text", parts.answer)
        object.__setattr__(self, "thinking", parts.thinking)


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
    """The program itself breaks every fresh sandbox that it runs in. The message says how."""


class Executor(Protocol):
    """Runs programs in sandboxes, which it replaces as needed; any number of threads may call it."""

    def execute(
        self, source: str, calls: Sequence[Mapping[str, Any]], time_limit_s: float, *, shared: bool = False
    ) -> Any:
        """Run as `Sandbox.execute`. Raises InfrastructureError, or SandboxViolation where the program is to blame."""
        ...

    def judge_asserts(self, source: str, test: "AssertProgram", time_limit_s: float) -> Any:
        """Run assert-style tests against a program: the asserts in one sandbox, the program in another.

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
        """Return the answer to the model's turn; a Verdict ends the session."""
        ...

    def end(self, ending: Ending) -> Verdict:
        """Return the verdict on an attempt that reached a bound after an Observation. Called at most once, last."""
        ...

    def close(self) -> None:
        """Release what the session holds."""
        ...


class Environment(Protocol):
    """Made with a Context; opens any number of sessions, side by side.

    A session's answers are a function of the task and of the replies: an attempt whose env worker died is played again
    elsewhere with the same replies. What a program left behind in a sandbox does not outlive a step.
    """

    observation_role: ClassVar[Literal["user", "tool"] | None]
    """Who speaks in its observations beside the user, None for a single-turn environment. Checked against the model's
    chat template."""

    @classmethod
    def check(cls, task: Task) -> None:
        """Called for every task before a run starts anything. Raises TaskFileError for a payload it cannot use."""
        ...

    def open(self, task: Task) -> Session:
        """Start an attempt."""
        ...


class SingleTurnEnvironment(ABC):
    """The base class of an environment that judges the first reply: write `judge`, nothing else."""

    observation_role: ClassVar[Literal["user", "tool"] | None] = None

    def __init__(self, context: Context) -> None:
        self.context = context

    @classmethod  # noqa: B027
    def check(cls, task: Task) -> None:
        """See `Environment.check`; every payload is accepted unless a subclass says otherwise."""

    @abstractmethod
    def judge(self, task: Task, reply: Reply) -> Verdict:
        """Return the verdict on the one reply."""

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
    """Raise TaskFileError for an environment that does not exist, UserError for a payload that it cannot use."""
    try:
        environment = environment_class(task.environment)
    except ConfigError as error:
        raise TaskFileError(f"task {show(task.id)}: {error}") from None
    try:
        environment.check(task)
    except UserError:
        raise
    except Exception as error:
        if task.environment in BUILT_IN:
            raise
        place = f"environment {task.environment}, task {show(task.id)}"
        raise TaskFileError(f"{place}: check raised {describe(error)}") from error


def load_environment(name: str, context: Context) -> Environment:
    """Return the environment called `name`. Raises ConfigError for one that does not exist."""
    environment: Environment = environment_class(name)(context)
    return environment


def environment_class(name: str) -> Any:
    """Return the class called `name`. Raises ConfigError where there is none, or where it is no environment."""
    path = BUILT_IN.get(name, name)
    if not all(path.partition(":")):
        allowed = f"{', '.join(BUILT_IN)}, or module:Class of your own"
        raise ConfigError(f"environment {name!r} does not exist{nearest(name, BUILT_IN)}; allowed: {allowed}")
    environment = load_own(f"environment {name!r}", path, "env.code")
    mistake = _mistake_in(environment)
    if mistake:
        raise ConfigError(f"environment {name!r} is no environment: {mistake}")
    return environment


def _mistake_in(environment: Any) -> str:
    """Return what keeps `environment` from being one; "" if nothing does."""
    if not isinstance(environment, type):
        return f"it is {type(environment).__name__}, not a class"
    missing = sorted(getattr(environment, "__abstractmethods__", ()))
    if missing:
        return f"it has no method {', '.join(missing)}"
    missing = [name for name in ("open", "check", "observation_role") if not hasattr(environment, name)]
    if not missing:
        return ""
    return f"it does not subclass SingleTurnEnvironment, and has no {', '.join(missing)}"

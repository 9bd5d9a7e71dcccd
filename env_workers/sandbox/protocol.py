"""What every sandbox offers. One execution at a time; a sandbox that failed once is closed, never used again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

Mode = Literal["candidate", "asserts"]


@dataclass(frozen=True, slots=True)
class Ended:
    """A conversation's last word: how the process inside ended.

    `outcome` is a record as `Sandbox.execute` makes them: a limit, exited (code), killed (code), garbled, or
    stopped (by `Conversation.close`).
    """

    outcome: Mapping[str, Any]


class Conversation(Protocol):
    """Messages to and fro with one process in a sandbox. What comes out of it is unchecked JSON."""

    def send(self, message: Any) -> None:
        """Hands the process a message. Raises InfrastructureError; a process that ended is told by `receive`."""
        ...

    def receive(self, timeout_s: float) -> Any:
        """The next message, or `Ended`, and then that for ever. Raises InfrastructureError after timeout_s."""
        ...

    def close(self) -> Ended:
        """Ends the process if it has not ended; the sandbox then serves the next execution. May be called twice."""
        ...


class Sandbox(Protocol):
    """A place where programs of unknown intent run. The inputs of tests go in, never their expected outputs."""

    def start(self) -> Mapping[str, Any]:
        """Starts it; facts about it (kind, python, ...). Raises SandboxUnavailable or InfrastructureError."""
        ...

    def execute(
        self, source: str, calls: Sequence[Mapping[str, Any]], time_limit_s: float, *, shared: bool = False
    ) -> Any:
        """Runs the program on each call; the runner's records, unchecked (see `env_workers.runner`), one a call.

        A call is {"kind": "functional", "function", "inputs"[, "kwargs"][, "plain"]} or {"kind": "stdin", "input"}.
        With a true `plain` a value travels as the built-in type that it compares like. Each call gets a fresh module of
        its own; with `shared` (functional calls only) one module serves all, so state is kept from call to call.
        time_limit_s is the wall time of one call. Raises InfrastructureError within the sandbox's own deadline.
        """
        ...

    def converse(
        self, mode: Mode, program: Mapping[str, Any], time_limit_s: float, wall_time_s: float | None = None
    ) -> Conversation:
        """Starts a process that talks; no other execution until the conversation is closed.

        mode candidate, program {"source"}: loads the program once and says {"status": "ready"}; every message
        {"function", "args", "kwargs"}, with values encoded, is answered by an outcome record.

        mode asserts, program {"functions", "source", "groups"}: runs the asserts; says {"ask": {"function", "args",
        "kwargs"}} and waits for that call's outcome record as the answer, {"outcome": record} once a group, and at
        last {"finished": true}.

        time_limit_s is the longest the process may work without a word while nothing is asked of the host;
        wall_time_s (default: the sandbox's) the longest it may live.
        """
        ...

    @property
    def worn(self) -> bool:
        """True when it must be replaced before the next execution: used up, or dirty. May wait for its clean-up."""
        ...

    @property
    def why_worn(self) -> str:
        """Why, when it is worn: executions, memory_limit, process_limit, unclean or lost."""
        ...

    def close(self) -> None:
        """Ends every process of it. May be called twice."""
        ...

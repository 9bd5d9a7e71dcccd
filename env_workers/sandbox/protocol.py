"""What every sandbox offers. One execution at a time; a sandbox that failed once is closed, never used again."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol


class Sandbox(Protocol):
    """A place where programs of unknown intent run. The inputs of tests go in, never their expected outputs."""

    def start(self) -> Mapping[str, Any]:
        """Starts it; facts about it (kind, python, ...). Raises SandboxUnavailable or InfrastructureError."""
        ...

    def execute(self, source: str, calls: Sequence[Mapping[str, Any]], time_limit_s: float) -> Any:
        """Runs the program on each call; the runner's records, unchecked (see `env_workers.runner`).

        time_limit_s is the wall time of one call. Raises InfrastructureError within the sandbox's own deadline.
        """
        ...

    @property
    def worn(self) -> bool:
        """True when it must be replaced before the next execution: used up, or dirty."""
        ...

    def close(self) -> None:
        """Ends every process of it. May be called twice."""
        ...

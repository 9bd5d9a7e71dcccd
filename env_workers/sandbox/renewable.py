"""A sandbox that is replaced when it is used up or broken; says whether the program or the sandbox is to blame.

A fault that the same program provokes in two fresh sandboxes, while a known-good canary passes in each before it, is
the program's own. Any other fault is the infrastructure's.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from env_workers.environment import SandboxViolation
from env_workers.sandbox.base import Sandbox
from sdpo.errors import InfrastructureError

FAULTS_TO_BLAME = 2
_CANARY = "def f(x):\n    print('tweet')\n    return [x * 2, str(x)]\n"
_CANARY_CALLS = [{"kind": "functional", "function": "f", "inputs": [x]} for x in (3, 21)]
_CANARY_OUTCOMES = [{"status": "returned", "value": ["list", [2 * x, str(x)]]} for x in (3, 21)]
CANARY_TIME_LIMIT_S = 10.0
SIGKILL = 9


class RenewableSandbox:
    """Sandboxes made by `make` and started by `start`, one at a time. Not thread-safe."""

    def __init__(
        self, make: Callable[[], Sandbox], start: Callable[[Sandbox], Mapping[str, Any]] = lambda new: new.start()
    ) -> None:
        self._make, self._start = make, start
        self._sandbox: Sandbox | None = None
        self.facts: dict[str, Any] = {}
        self.num_started = 0
        self.discarded: Counter[str] = Counter()
        """Number of discarded sandboxes by reason: that of `Sandbox.restart_reason`, or fault."""

    def execute(
        self, source: str, calls: Sequence[Mapping[str, Any]], time_limit_s: float, *, shared: bool = False
    ) -> Any:
        """See `Executor.execute`. A faulty program costs at most three executions, each with its own deadline."""
        fresh_faults = 0
        while True:
            fresh = self.ensure()
            try:
                return self._run(source, calls, time_limit_s, shared)
            except InfrastructureError as error:
                self.discard("fault")
                fresh_faults += fresh
                if fresh_faults == FAULTS_TO_BLAME:
                    raise SandboxViolation(str(error)) from None

    def check(self) -> float:
        """Start a sandbox if there is none and run the canary; return the seconds that took. Raises as `execute`."""
        begin = time.monotonic()
        if not self.ensure():
            try:
                self._canary()
            except InfrastructureError:
                self.ensure()  # it broke between two executions: a new one, whose canary must pass
        return time.monotonic() - begin

    def close(self) -> None:
        """End the sandbox; the next execution starts another."""
        sandbox, self._sandbox = self._sandbox, None
        if sandbox is not None:
            sandbox.close()

    def discard(self, reason: str) -> None:
        """Close the sandbox and count it under `reason`."""
        if self._sandbox is not None:
            self.discarded[reason] += 1
        self.close()

    def ensure(self) -> bool:
        """Start a sandbox where none can be used; True when it is a new one, in which the canary passed."""
        if self._sandbox is not None:
            reason = self._sandbox.restart_reason
            if reason is None:
                return False
            self.discard(reason)
        self._sandbox = self._make()
        try:
            self.facts = dict(self._start(self._sandbox))
        except BaseException:
            self.close()
            raise
        self.num_started += 1
        self._canary()
        return True

    @property
    def sandbox(self) -> Sandbox:
        """The sandbox that `ensure` started or found usable."""
        assert self._sandbox is not None
        return self._sandbox

    def _canary(self) -> None:
        try:
            records = self._run(_CANARY, _CANARY_CALLS, CANARY_TIME_LIMIT_S)
        except InfrastructureError:
            self.discard("fault")
            raise
        if records != _CANARY_OUTCOMES:
            self.discard("fault")
            raise InfrastructureError(f"the canary program failed in a fresh sandbox: {records!r:.200}")

    def _run(self, source: str, calls: Sequence[Mapping[str, Any]], time_limit_s: float, shared: bool = False) -> Any:
        records = self.sandbox.execute(source, calls, time_limit_s, shared=shared)
        for record in records:
            refuse_kill(record)
        return records


def refuse_kill(outcome: Any) -> None:
    """Raise InfrastructureError for SIGKILL, which no sandbox sends before it has the outcome.

    The machine is out of memory, or the program killed itself.
    """
    if isinstance(outcome, dict) and outcome.get("status") == "killed" and outcome.get("code") == SIGKILL:
        raise InfrastructureError("the program's process was killed from outside")

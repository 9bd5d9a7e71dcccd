"""One whole sandbox at any moment: replaced when worn or broken, and the judge of whose fault a break was.

A fault that the same program provokes in two fresh sandboxes, while a known-good canary passes in each before it, is
the program's own. Any other fault is the infrastructure's.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from env_workers.environment import SandboxViolation
from env_workers.sandbox.protocol import Sandbox
from sdpo.errors import InfrastructureError

FAULTS_TO_BLAME = 2
_CANARY = "def f(x):\n    print('tweet')\n    return [x * 2, str(x)]\n"
_CANARY_CALLS = [{"kind": "functional", "function": "f", "inputs": [x]} for x in (3, 21)]
_CANARY_OUTCOMES = [{"status": "returned", "value": ["list", [2 * x, str(x)]]} for x in (3, 21)]
CANARY_TIME_LIMIT_S = 10.0
SIGKILL = 9


class SandboxLease:
    """Sandboxes made by `make` and started by `start`, one at a time. Not thread-safe."""

    def __init__(
        self, make: Callable[[], Sandbox], start: Callable[[Sandbox], Mapping[str, Any]] = lambda box: box.start()
    ) -> None:
        self._make, self._start = make, start
        self._sandbox: Sandbox | None = None
        self.facts: dict[str, Any] = {}
        self.num_started = 0
        self.thrown_away: Counter[str] = Counter()
        """Sandboxes by why they were thrown away: what `Sandbox.why_worn` says, or fault."""

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
        """Starts a sandbox if there is none and runs the canary; seconds that took. Raises as `execute`."""
        begin = time.monotonic()
        if not self.ensure():
            try:
                self._canary()
            except InfrastructureError:
                self.ensure()  # it broke while nobody looked: a fresh one, whose canary must pass
        return time.monotonic() - begin

    def close(self) -> None:
        """Ends the sandbox; the next execution starts another."""
        sandbox, self._sandbox = self._sandbox, None
        if sandbox is not None:
            sandbox.close()

    def discard(self, reason: str) -> None:
        """As `close`, and counts it."""
        if self._sandbox is not None:
            self.thrown_away[reason] += 1
        self.close()

    def ensure(self) -> bool:
        """Sees to a whole sandbox; True when it is a fresh one, in which the canary passed."""
        if self._sandbox is not None:
            if not self._sandbox.worn:
                return False
            self.discard(self._sandbox.why_worn)
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
        """The sandbox that `ensure` saw to."""
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
    """Raises InfrastructureError for SIGKILL, which no sandbox sends before the outcome is in.

    The machine is out of memory, or the program killed itself.
    """
    if isinstance(outcome, dict) and outcome.get("status") == "killed" and outcome.get("code") == SIGKILL:
        raise InfrastructureError("the program's process was killed from outside")

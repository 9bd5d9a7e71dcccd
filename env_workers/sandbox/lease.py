"""One whole sandbox at any moment: replaced when worn or broken, and the judge of whose fault a break was.

A fault that the same program provokes in two fresh sandboxes, while a known-good canary passes in each before it, is
the program's own. Any other fault is the infrastructure's.
"""

import time
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
    """An `Executor` over sandboxes made by `make`."""

    def __init__(self, make: Callable[[], Sandbox]) -> None:
        self._make = make
        self._sandbox: Sandbox | None = None
        self.facts: dict[str, Any] = {}
        self.num_started = 0

    def execute(
        self, source: str, calls: Sequence[Mapping[str, Any]], time_limit_s: float, *, shared: bool = False
    ) -> Any:
        """See `Executor.execute`. A faulty program costs at most three executions, each with its own deadline."""
        fresh_faults = 0
        while True:
            fresh = self._ensure()
            try:
                return self._run(source, calls, time_limit_s, shared)
            except InfrastructureError as error:
                self.close()
                fresh_faults += fresh
                if fresh_faults == FAULTS_TO_BLAME:
                    raise SandboxViolation(str(error)) from None

    def check(self) -> float:
        """Starts a sandbox if there is none and runs the canary; seconds that took. Raises as `execute`."""
        begin = time.monotonic()
        if not self._ensure():
            try:
                self._canary()
            except InfrastructureError:
                self._ensure()  # it broke while nobody looked: a fresh one, whose canary must pass
        return time.monotonic() - begin

    def close(self) -> None:
        """Throws the sandbox away; the next execution starts another."""
        sandbox, self._sandbox = self._sandbox, None
        if sandbox is not None:
            sandbox.close()

    def _ensure(self) -> bool:
        """A whole sandbox; True when it is a fresh one, in which the canary passed."""
        if self._sandbox is not None and not self._sandbox.worn:
            return False
        self.close()
        self._sandbox = self._make()
        self.facts = dict(self._sandbox.start())
        self.num_started += 1
        self._canary()
        return True

    def _canary(self) -> None:
        try:
            records = self._run(_CANARY, _CANARY_CALLS, CANARY_TIME_LIMIT_S)
        except InfrastructureError:
            self.close()
            raise
        if records != _CANARY_OUTCOMES:
            self.close()
            raise InfrastructureError(f"the canary program failed in a fresh sandbox: {records!r:.200}")

    def _run(self, source: str, calls: Sequence[Mapping[str, Any]], time_limit_s: float, shared: bool = False) -> Any:
        assert self._sandbox is not None
        records = self._sandbox.execute(source, calls, time_limit_s, shared=shared)
        # SIGKILL that the sandbox did not send: the machine is out of memory, or the program killed itself.
        if any(isinstance(r, dict) and r.get("status") == "killed" and r.get("code") == SIGKILL for r in records):
            raise InfrastructureError("the program's process was killed from outside")
        return records

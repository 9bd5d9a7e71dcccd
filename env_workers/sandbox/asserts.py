"""Assert-style tests: the asserts run in one sandbox, the program in another; the host passes messages between them.

Faults of the program's sandbox and of the asserts' sandbox are counted apart. As everywhere (see
`env_workers.sandbox.renewable`) the same fault in two fresh sandboxes ends the attempt.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from env_workers.environment import AssertProgram, SandboxViolation
from env_workers.sandbox.base import GRACE_S, Conversation, Ended
from env_workers.sandbox.renewable import FAULTS_TO_BLAME, RenewableSandbox, refuse_kill
from sdpo.errors import InfrastructureError

ASSERTS_STEP_S = 10.0
"""The longest that the asserts may work between two calls of the program, in seconds. They are not the model's, but
they work on the values that its program returns."""
_LIMITS = ("timeout", "cpu_limit", "memory_limit", "output_limit", "process_limit")


class _AssertsFault(InfrastructureError):
    """The asserts' sandbox broke, or the asserts ended too early; `outcome` is the record of their end, if known."""

    def __init__(self, message: str, outcome: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.outcome = outcome


def judge_asserts(
    programs: RenewableSandbox,
    asserts: RenewableSandbox,
    source: str,
    test: AssertProgram,
    *,
    call_s: float,
    wall_s: float,
    retry_until: float,
) -> list[Any]:
    """Return one record a group (see `env_workers.runner.asserts`); not_run for those after the end of either process.

    call_s and wall_s limit one call of the program and all calls; the asserts may take ASSERTS_STEP_S more. Nothing is
    tried again after `retry_until`, a time of time.monotonic().

    A limit that the asserts pass twice, in fresh sandboxes, on the program's values is that group's record. Raises
    SandboxViolation when the program breaks every fresh sandbox, InfrastructureError when the asserts do.
    """
    program_faults = asserts_faults = 0
    while True:
        program_is_fresh, asserts_are_fresh = programs.ensure(), asserts.ensure()
        dialogue = _Dialogue(test, call_s, wall_s)
        try:
            return dialogue.run(programs, asserts, source)
        except _AssertsFault as fault:
            asserts.discard("fault")
            asserts_faults += asserts_are_fresh
            if asserts_faults == FAULTS_TO_BLAME:
                if dialogue.num_answers and fault.outcome and fault.outcome.get("status") in _LIMITS:
                    return dialogue.records(fault.outcome)
                raise InfrastructureError(f"the asserts' sandbox: {fault}") from None
            _give_up_in_time(retry_until, fault)
        except InfrastructureError as error:
            programs.discard("fault")
            program_faults += program_is_fresh
            if program_faults == FAULTS_TO_BLAME:
                raise SandboxViolation(str(error)) from None
            _give_up_in_time(retry_until, error)


def _give_up_in_time(retry_until: float, error: InfrastructureError) -> None:
    if time.monotonic() > retry_until:
        raise InfrastructureError(f"no time to try again: {error}")


class _Dialogue:
    def __init__(self, test: AssertProgram, call_s: float, wall_s: float) -> None:
        self._test, self._call_s, self._wall_s = test, call_s, wall_s
        self._deadline = time.monotonic() + wall_s + ASSERTS_STEP_S + GRACE_S
        self._outcomes: list[Any] = []
        self.num_answers = 0

    def run(self, programs: RenewableSandbox, asserts: RenewableSandbox, source: str) -> list[Any]:
        """Hold both conversations from start to end; return one record a group. Raises InfrastructureError."""
        program = programs.sandbox.converse("candidate", {"source": source}, self._call_s, self._wall_s)
        judge: Conversation | None = None
        try:
            with _blaming_asserts():
                test = {name: getattr(self._test, name) for name in ("functions", "source", "groups")}
                judge = asserts.sandbox.converse("asserts", test, ASSERTS_STEP_S, self._wall_s + ASSERTS_STEP_S)
            self._receive(program)
            self._exchange(program, judge)
        finally:
            if judge is not None:
                with _blaming_asserts():
                    judge.close()
            program.close()
        return self.records(None)

    def records(self, last: dict[str, Any] | None) -> list[Any]:
        """Return the outcomes so far, `last` for the group that was running, and not_run for the rest."""
        records = self._outcomes[: len(self._test.groups)]
        if last is not None and len(records) < len(self._test.groups):
            records = [*records, last]
        return records + [{"status": "not_run"}] * (len(self._test.groups) - len(records))

    def _exchange(self, program: Conversation, judge: Conversation) -> None:
        while True:
            with _blaming_asserts():
                message = judge.receive(self._left_s())
            if isinstance(message, Ended):
                raise _AssertsFault(f"the asserts ended: {message.outcome!r:.200}", dict(message.outcome))
            if not isinstance(message, dict):
                raise _AssertsFault(f"the asserts sent {message!r:.80}")
            if "finished" in message:
                return
            if "outcome" in message:
                self._outcomes.append(message["outcome"])
            elif "ask" in message:
                program.send(message["ask"])
                answer = self._receive(program)
                with _blaming_asserts():
                    judge.send(answer)
                self.num_answers += 1
            else:
                raise _AssertsFault(f"the asserts broke: {message!r:.300}")

    def _receive(self, program: Conversation) -> Any:
        """Return the program's next message, or the record of its end. Raises InfrastructureError for SIGKILL."""
        answer = program.receive(self._left_s())
        answer = answer.outcome if isinstance(answer, Ended) else answer
        refuse_kill(answer)
        return answer

    def _left_s(self) -> float:
        return max(0.0, self._deadline - time.monotonic())


@contextmanager
def _blaming_asserts() -> Iterator[None]:
    """Turn an InfrastructureError into a fault of the asserts' sandbox."""
    try:
        yield
    except _AssertsFault:
        raise
    except InfrastructureError as error:
        raise _AssertsFault(str(error)) from None

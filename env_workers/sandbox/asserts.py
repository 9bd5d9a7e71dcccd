"""Assert-style tests: the asserts in one sandbox, the program in another, and the host carries the words between.

What is broken is told apart: a fault of the program's sandbox and one of the asserts' sandbox each count for their
own, and as everywhere (see `env_workers.sandbox.lease`) the same one in two fresh sandboxes ends the attempt.
"""

import time
from dataclasses import dataclass
from typing import Any

from env_workers.environment import AssertProgram, SandboxViolation
from env_workers.sandbox.client import GRACE_S
from env_workers.sandbox.lease import FAULTS_TO_BLAME, SandboxLease, refuse_kill
from env_workers.sandbox.protocol import Conversation, Ended
from sdpo.errors import InfrastructureError

THINKING_S = 10.0
"""The longest that the asserts may work between two calls of the program; they are not a model's, but its values are
what they work on."""
_LIMITS = ("timeout", "cpu_limit", "memory_limit", "output_limit", "process_limit")


class _AssertsFault(InfrastructureError):
    """The asserts' sandbox broke, or the asserts ended without having said everything. `outcome`: how, if known."""

    def __init__(self, message: str, outcome: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.outcome = outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """Seconds for a call of the program and for all of them; the asserts may take THINKING_S more.

    Nothing is tried again after `retry_until`, a time of time.monotonic().
    """

    call_s: float
    wall_s: float
    retry_until: float


def judge_asserts(
    programs: SandboxLease, asserts: SandboxLease, source: str, test: AssertProgram, times: Times
) -> list[Any]:
    """One record a group (see `env_workers.runner.asserts`), not_run where the program or the asserts ended before.

    A limit that the program's values drive the
    asserts over twice, in fresh sandboxes, is that group's record. Raises SandboxViolation when the program breaks
    every fresh sandbox, InfrastructureError when the asserts do.
    """
    program_faults = asserts_faults = 0
    while True:
        program_is_fresh, asserts_are_fresh = programs.ensure(), asserts.ensure()
        dialogue = _Dialogue(test, times)
        try:
            return dialogue.run(programs, asserts, source)
        except _AssertsFault as fault:
            asserts.discard("fault")
            asserts_faults += asserts_are_fresh
            if asserts_faults == FAULTS_TO_BLAME:
                if dialogue.num_answers and fault.outcome and fault.outcome.get("status") in _LIMITS:
                    return dialogue.records(fault.outcome)
                raise InfrastructureError(f"the asserts' sandbox: {fault}") from None
            _give_up_in_time(times, fault)
        except InfrastructureError as error:
            programs.discard("fault")
            program_faults += program_is_fresh
            if program_faults == FAULTS_TO_BLAME:
                raise SandboxViolation(str(error)) from None
            _give_up_in_time(times, error)


def _give_up_in_time(times: Times, error: InfrastructureError) -> None:
    if time.monotonic() > times.retry_until:
        raise InfrastructureError(f"no time to try again: {error}")


class _Dialogue:
    def __init__(self, test: AssertProgram, times: Times) -> None:
        self._test, self._times = test, times
        self._deadline = time.monotonic() + times.wall_s + THINKING_S + GRACE_S
        self._outcomes: list[Any] = []
        self.num_answers = 0

    def run(self, programs: SandboxLease, asserts: SandboxLease, source: str) -> list[Any]:
        """Both conversations, from the first word to the last. Raises InfrastructureError."""
        program = programs.sandbox.converse("candidate", {"source": source}, self._times.call_s, self._times.wall_s)
        judge: Conversation | None = None
        try:
            judge = _of_asserts(lambda: self._open(asserts))
            self._refuse_kill(program.receive(self._left_s()))
            self._talk(program, judge)
        finally:
            if judge is not None:
                _of_asserts(judge.close)
            program.close()
        return self.records(None)

    def records(self, last: dict[str, Any] | None) -> list[Any]:
        """What was said so far, and `last` for the group that was at work."""
        records = self._outcomes[: len(self._test.groups)]
        if last is not None and len(records) < len(self._test.groups):
            records = [*records, last]
        return records + [{"status": "not_run"}] * (len(self._test.groups) - len(records))

    def _open(self, asserts: SandboxLease) -> Conversation:
        test = {
            "functions": list(self._test.functions),
            "source": self._test.source,
            "groups": list(self._test.groups),
        }
        return asserts.sandbox.converse("asserts", test, THINKING_S, self._times.wall_s + THINKING_S)

    def _talk(self, program: Conversation, judge: Conversation) -> None:
        while True:
            said = _of_asserts(lambda: judge.receive(self._left_s()))
            if isinstance(said, Ended):
                raise _AssertsFault(f"the asserts ended: {said.outcome!r:.200}", dict(said.outcome))
            if not isinstance(said, dict):
                raise _AssertsFault(f"the asserts said {said!r:.80}")
            if "finished" in said:
                return
            if "outcome" in said:
                self._outcomes.append(said["outcome"])
            elif "ask" in said:
                answer = self._answer(program, said["ask"])
                _of_asserts(lambda answer=answer: judge.send(answer))
                self.num_answers += 1
            else:
                raise _AssertsFault(f"the asserts broke: {said!r:.300}")

    def _answer(self, program: Conversation, call: Any) -> Any:
        program.send(call)
        answer = program.receive(self._left_s())
        return self._refuse_kill(answer)

    def _refuse_kill(self, answer: Any) -> Any:
        answer = answer.outcome if isinstance(answer, Ended) else answer
        refuse_kill(answer)
        return answer

    def _left_s(self) -> float:
        return max(0.0, self._deadline - time.monotonic())


def _of_asserts(step: Any) -> Any:
    try:
        return step()
    except _AssertsFault:
        raise
    except InfrastructureError as error:
        raise _AssertsFault(str(error)) from None

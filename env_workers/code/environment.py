"""The code environment: one program, its tests, one verdict."""

from env_workers.code import feedback
from env_workers.code.extract import extract_program
from env_workers.code.judge import judge_missing, judge_outcomes
from env_workers.code.outcome import parse_outcomes
from env_workers.code.tests import calls_of, parse_tests
from env_workers.environment import Reply, SandboxViolation, SingleTurnEnvironment
from sdpo.types import Task, Verdict


class CodeEnvironment(SingleTurnEnvironment):
    """Payload: see `env_workers.code.tests`. Reward 1 when every test passes, else 0."""

    @classmethod
    def check(cls, task: Task) -> None:
        """The payload must hold tests that `env_workers.code.tests` can read."""
        parse_tests(task)

    def judge(self, task: Task, reply: Reply) -> Verdict:
        """See `SingleTurnEnvironment.judge`."""
        tests = parse_tests(task)
        program = extract_program(reply.text)
        if program is None:
            return judge_missing(tests, reply.truncated)
        time_limit_s = tests.time_limit_s or self.context.config.time_limit_s
        try:
            records = self.context.sandbox.execute(program, calls_of(tests), time_limit_s)
        except SandboxViolation as error:
            details = {"num_tests": len(tests.tests), "num_passed": 0, "fraction_passed": 0.0, "fault": str(error)}
            return Verdict(
                reward=0.0, success=False, kind="sandbox_violation", feedback=feedback.VIOLATION, details=details
            )
        return judge_outcomes(parse_outcomes(records, len(tests.tests)), tests)

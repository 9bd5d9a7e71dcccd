"""The code environment: one program, its tests, one verdict."""

from collections.abc import Mapping
from typing import Any

from env_workers.code.capacity import batches
from env_workers.code.extract import extract_program
from env_workers.code.judge import judge_missing, judge_outcomes, judge_violation
from env_workers.code.open_asserts import run_open_asserts
from env_workers.code.outcome import LIMIT_TITLES, Outcome, parse_assert_outcomes, parse_outcomes
from env_workers.code.plain_asserts import read_plain_outcomes
from env_workers.code.tests import CodeTests, answers_of, calls_of, parse_tests
from env_workers.environment import Context, Reply, SandboxViolation, SingleTurnEnvironment
from sdpo.types import Task, Verdict

MAX_PARSED = 64


class CodeEnvironment(SingleTurnEnvironment):
    """Payload: see `env_workers.code.tests`. Reward 1 when every test passes, else 0."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._parsed: dict[str, tuple[Mapping[str, Any], CodeTests]] = {}

    @classmethod
    def check(cls, task: Task) -> None:
        """The payload must hold tests that `env_workers.code.tests` can read."""
        parse_tests(task)

    def judge(self, task: Task, reply: Reply) -> Verdict:
        """See `SingleTurnEnvironment.judge`."""
        tests = self._tests_of(task)
        program = extract_program(reply.text)
        if program is None:
            return judge_missing(tests, reply.truncated)
        try:
            outcomes = self._run(task, program, tests)
        except SandboxViolation as error:
            return judge_violation(tests, str(error))
        return judge_outcomes(outcomes, tests)

    def _tests_of(self, task: Task) -> CodeTests:
        """Return the task's parsed tests, which are kept: the attempts at a task mostly come one after another."""
        payload, tests = self._parsed.get(task.id, (None, None))
        if tests is None or payload != task.payload:
            tests = parse_tests(task)
            if len(self._parsed) >= MAX_PARSED:
                self._parsed.clear()
            self._parsed[task.id] = task.payload, tests
        return tests

    def _run(self, task: Task, program: str, tests: CodeTests) -> list[Outcome]:
        sandbox = self.context.sandbox
        time_limit_s = tests.time_limit_s or self.context.config.time_limit_s
        if tests.asserts is None:
            return self._run_batches(program, tests, time_limit_s)
        if tests.open:
            return run_open_asserts(self.context, task, program, tests.asserts, time_limit_s)
        plain = tests.plain_asserts
        if plain is not None:
            calls = [item.record for item in plain]
            records = sandbox.execute(program, calls, time_limit_s, shared=True)
            return read_plain_outcomes(parse_outcomes(records, len(calls)), plain)
        return parse_assert_outcomes(sandbox.judge_asserts(program, tests.asserts, time_limit_s), len(tests.tests))

    def _run_batches(self, program: str, tests: CodeTests, time_limit_s: float) -> list[Outcome]:
        """Return one outcome a test; batches after one in which the program was ended are not run."""
        outcomes: list[Outcome] = []
        for batch in batches(calls_of(tests), answers_of(tests)):
            outcomes += parse_outcomes(self.context.sandbox.execute(program, batch, time_limit_s), len(batch))
            if outcomes[-1].status == "not_run" or outcomes[-1].status in LIMIT_TITLES:
                break
        return outcomes + [Outcome(status="not_run")] * (len(tests.tests) - len(outcomes))

"""From outcomes to a verdict: reward 1 only when every test passes (paper, section 4). Pure."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from env_workers.code import feedback
from env_workers.code.compare import same_text, same_value
from env_workers.code.extract import extract_program
from env_workers.code.open_asserts import open_program, read_open_outcomes
from env_workers.code.outcome import Outcome, parse_assert_outcomes, parse_outcomes
from env_workers.code.tests import AssertGroup, CodeTests, FunctionalTest, Test, calls_of, parse_tests
from env_workers.runner.answers import plain_answer
from env_workers.runner.asserts import run_asserts
from env_workers.runner.program import run_program, serve_calls
from env_workers.runner.stdio import Stdio
from sdpo.types import Task, Verdict

_RUNTIME_ERRORS = ("raised", "exited", "killed", "garbled")


def judge_outcomes(outcomes: Sequence[Outcome], tests: CodeTests) -> Verdict:
    """The verdict on a program from one outcome a test. `details["accuracy"]` is the fraction of tests passed."""
    passed = [_passes(outcome, test) for outcome, test in zip(outcomes, tests.tests, strict=True)]
    kind, text = _explain(outcomes, tests.tests, passed)
    success = all(passed)
    details = count(tests, sum(passed))
    return Verdict(reward=float(success), success=success, kind=kind, feedback=text, details=details)


def judge_missing(tests: CodeTests, truncated: bool) -> Verdict:
    """The verdict on a response without a program; `truncated`: it was cut at the length limit."""
    kind, text = ("truncated", feedback.TRUNCATED) if truncated else ("no_program", feedback.NO_PROGRAM)
    return Verdict(reward=0.0, success=False, kind=kind, feedback=text, details=count(tests, 0))


def judge_violation(tests: CodeTests, fault: str) -> Verdict:
    """The verdict on a program that breaks every sandbox; `fault` says how."""
    details = {**count(tests, 0), "fault": fault}
    return Verdict(reward=0.0, success=False, kind="sandbox_violation", feedback=feedback.VIOLATION, details=details)


def judge_trusted(task: Task, response: str, truncated: bool = False) -> Verdict:
    """As the env worker judges, but in the current process without sandbox or limits: only for programs one wrote."""
    tests = parse_tests(task)
    program = extract_program(response)
    if program is None:
        return judge_missing(tests, truncated)
    if tests.asserts is None:
        outcomes = parse_outcomes(list(run_program(program, calls_of(tests))), len(tests.tests))
    elif tests.open:
        source, calls = open_program(program, tests.asserts)
        records = list(run_program(source, calls, shared=True))
        outcomes = read_open_outcomes(parse_outcomes(records, len(calls)), program, tests.asserts)
    else:
        test = tests.asserts
        records = list(run_asserts(test.source, test.groups, test.functions, _Here(program).ask))
        records += [{"status": "not_run"}] * (len(test.groups) - len(records))
        outcomes = parse_assert_outcomes(records, len(test.groups))
    return judge_outcomes(outcomes, tests)


def count(tests: CodeTests, num_passed: int) -> dict[str, Any]:
    """The figures in every verdict's details."""
    num_tests = len(tests.tests)
    return {"num_tests": num_tests, "num_passed": num_passed, "accuracy": num_passed / num_tests}


class _Here:
    """A program in the current process, as `run_asserts` asks for it."""

    def __init__(self, program: str) -> None:
        self._next: Mapping[str, Any] = {}
        self._outcomes = serve_calls(program, self._calls(), Stdio(65536), plain_answer)

    def ask(self, message: Mapping[str, Any]) -> Any:
        self._next = {"function": message["function"], "inputs": message["args"], "kwargs": message["kwargs"]}
        return next(self._outcomes)

    def _calls(self) -> Iterator[Mapping[str, Any]]:
        while True:
            yield self._next


def _passes(outcome: Outcome, test: Test) -> bool:
    if isinstance(test, AssertGroup):
        return outcome.status == "passed"
    if isinstance(test, FunctionalTest):
        return outcome.status == "returned" and same_value(outcome.value, test.expected)
    return outcome.status == "printed" and same_text(outcome.text, test.expected)


def _explain(outcomes: Sequence[Outcome], tests: Sequence[Test], passed: Sequence[bool]) -> tuple[str, str]:
    for outcome, test in zip(outcomes, tests, strict=True):
        if outcome.status == "syntax_error":
            return "syntax_error", feedback.syntax_error(outcome)
        if outcome.status in _RUNTIME_ERRORS:
            return "runtime_error", feedback.runtime_error(outcome, test)
    for outcome, test in zip(outcomes, tests, strict=True):
        if outcome.status in feedback.LIMIT_TITLES:
            return outcome.status, feedback.limit_exceeded(outcome, test)
    failures = [(i, o, t) for i, (o, t, ok) in enumerate(zip(outcomes, tests, passed, strict=True)) if not ok]
    return ("wrong_answer", feedback.wrong_answers(failures)) if failures else ("passed", "")

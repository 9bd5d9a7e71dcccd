"""From outcomes to a verdict: reward 1 only when every test passes (paper, section 4). Pure."""

from collections.abc import Sequence

from env_workers.code import feedback
from env_workers.code.compare import same_text, same_value
from env_workers.code.extract import extract_program
from env_workers.code.outcome import Outcome, parse_outcomes
from env_workers.code.tests import CodeTests, FunctionalTest, Test, calls_of, parse_tests
from env_workers.runner import run_program
from sdpo.types import Task, Verdict

_RUNTIME_ERRORS = ("raised", "exited", "killed", "garbled")


def judge_outcomes(outcomes: Sequence[Outcome], tests: CodeTests) -> Verdict:
    """The verdict on a program from one outcome a test."""
    passed = [_passes(outcome, test) for outcome, test in zip(outcomes, tests.tests, strict=True)]
    kind, text = _explain(outcomes, tests.tests, passed)
    success = all(passed)
    details = {"num_tests": len(passed), "num_passed": sum(passed), "fraction_passed": sum(passed) / len(passed)}
    return Verdict(reward=float(success), success=success, kind=kind, feedback=text, details=details)


def judge_missing(tests: CodeTests, truncated: bool) -> Verdict:
    """The verdict on a response without a program; `truncated`: it was cut at the length limit."""
    details = {"num_tests": len(tests.tests), "num_passed": 0, "fraction_passed": 0.0}
    kind, text = ("truncated", feedback.TRUNCATED) if truncated else ("no_program", feedback.NO_PROGRAM)
    return Verdict(reward=0.0, success=False, kind=kind, feedback=text, details=details)


def judge_trusted(task: Task, response: str, truncated: bool = False) -> Verdict:
    """As the env worker judges, but in the current process without sandbox or limits: only for programs one wrote."""
    tests = parse_tests(task)
    program = extract_program(response)
    if program is None:
        return judge_missing(tests, truncated)
    return judge_outcomes(parse_outcomes(list(run_program(program, calls_of(tests))), len(tests.tests)), tests)


def _passes(outcome: Outcome, test: Test) -> bool:
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

"""From outcomes to a verdict: reward 1 only when every test passes (paper, section 4). Pure."""

from collections.abc import Sequence
from typing import Any

from env_workers.code import feedback
from env_workers.code.compare import Comparison, same_text, same_value
from env_workers.code.outcome import LIMIT_TITLES, Outcome
from env_workers.code.tests import AssertGroup, CodeTests, FunctionalTest, Test
from env_workers.verdicts import failed
from sdpo.types import Verdict

_RUNTIME_ERRORS = ("raised", "exited", "killed", "garbled")


def judge_outcomes(outcomes: Sequence[Outcome], tests: CodeTests) -> Verdict:
    """Return the verdict on a program from one outcome a test.

    `details["accuracy"]` is the fraction of tests passed.
    """
    compared = zip(outcomes, tests.tests, strict=True)
    passed = [_passes(outcome, test, tests.comparison) for outcome, test in compared]
    kind, text = _explain(outcomes, tests.tests, passed)
    success = all(passed)
    details = count(tests, sum(passed))
    return Verdict(reward=float(success), success=success, kind=kind, feedback=text, details=details)


def judge_missing(tests: CodeTests, truncated: bool) -> Verdict:
    """Return the verdict on a response without a program; `truncated`: it was cut at the length limit."""
    kind, text = ("truncated", feedback.TRUNCATED) if truncated else ("no_program", feedback.NO_PROGRAM)
    return failed(kind, text, **count(tests, 0))


def judge_violation(tests: CodeTests, fault: str) -> Verdict:
    """Return the verdict on a program that breaks every sandbox; `fault` says how."""
    return failed("sandbox_violation", feedback.VIOLATION, **count(tests, 0), fault=fault)


def count(tests: CodeTests, num_passed: int) -> dict[str, Any]:
    """Return the figures that every verdict has in its details."""
    num_tests = len(tests.tests)
    return {"num_tests": num_tests, "num_passed": num_passed, "accuracy": num_passed / num_tests}


def _passes(outcome: Outcome, test: Test, comparison: Comparison) -> bool:
    if isinstance(test, AssertGroup):
        return outcome.status == "passed"
    if isinstance(test, FunctionalTest):
        return outcome.status == "returned" and same_value(outcome.value, test.expected, comparison)
    return outcome.status == "printed" and same_text(outcome.text, test.expected, comparison)


def _explain(outcomes: Sequence[Outcome], tests: Sequence[Test], passed: Sequence[bool]) -> tuple[str, str]:
    for outcome, test in zip(outcomes, tests, strict=True):
        if outcome.status == "syntax_error":
            return "syntax_error", feedback.syntax_error(outcome)
        if outcome.status in _RUNTIME_ERRORS:
            return "runtime_error", feedback.runtime_error(outcome, test)
    for outcome, test in zip(outcomes, tests, strict=True):
        if outcome.status in LIMIT_TITLES:
            return outcome.status, feedback.limit_exceeded(outcome, test)
    failures = [(i, o, t) for i, (o, t, ok) in enumerate(zip(outcomes, tests, passed, strict=True)) if not ok]
    return ("wrong_answer", feedback.wrong_answers(failures)) if failures else ("passed", "")

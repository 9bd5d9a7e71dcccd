"""Judges the final answer of a task with tools.

Checks of the payload run in the sandbox, in an execution of their own.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from env_workers.code.outcome import Call, Outcome, parse_outcomes
from env_workers.environment import Executor
from env_workers.tools.execution import MAX_ARGUMENT_BYTES, Result
from env_workers.tools.payload import CHECK, Answer
from env_workers.tools.refusals import described
from sdpo.errors import EnvironmentFault
from sdpo.types import Task

MAX_ANSWER_CHARS = 10_000
_NUMBER = re.compile(r"[+-]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+)?(?:[eE][+-]?\d+)?", re.ASCII)
_PATTERN = "\n\ndef check(answer, calls):\n    import re\n    return re.fullmatch({pattern!r}, answer) is not None\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Grade:
    """`score` 0 to 1; `text` says more where there is more to say, in the words of the payload's check.

    `error`: how the check itself failed on this answer, by an exception or a limit; "" where it did not.
    """

    score: float
    text: str = ""
    error: str = ""


def grade(
    task: Task, answer: Answer, given: str, results: Sequence[Result], executor: Executor, time_limit_s: float
) -> Grade:
    """Grade the answer `given`. Raises EnvironmentFault for a check that gives no score, and what `executor` raises."""
    if answer.kind == "exact":
        return Grade(score=float(given.split() == answer.text.split()))
    if answer.kind == "number":
        return _grade_number(answer, given)
    source = answer.text if answer.kind == "check" else _PATTERN.format(pattern=answer.text)
    calls = [
        {"name": r.call.name, "arguments": r.call.arguments, "result": r.text, "failed": r.failed} for r in results
    ]
    call = Call(function=CHECK, args=(given, calls)).record(8 * MAX_ARGUMENT_BYTES)
    (outcome,) = parse_outcomes(executor.execute(source, [call], time_limit_s), 1)
    return _read(task, outcome)


def _grade_number(answer: Answer, given: str) -> Grade:
    if not _NUMBER.fullmatch(given) or not any(c.isdigit() for c in given):
        return Grade(score=0.0, text="The answer must be a number alone.")
    value = float(given.replace(",", ""))
    return Grade(score=float(math.isclose(value, answer.number, rel_tol=answer.tolerance, abs_tol=answer.tolerance)))


def _error(outcome: Outcome) -> str:
    where = f" (line {outcome.frames[-1][0]} of the check)" if outcome.frames else ""
    return described(outcome) + where


def _read(task: Task, outcome: Outcome) -> Grade:
    value = outcome.value
    score, text = value if isinstance(value, list | tuple) and len(value) == 2 else (value, "")
    sound = isinstance(text, str) and isinstance(score, bool | int | float) and 0 <= score <= 1
    if outcome.status == "returned" and sound:
        return Grade(score=float(score), text=text)
    if outcome.status not in ("returned", "returned_other"):
        return Grade(score=0.0, text="It could not be checked.", error=_error(outcome))
    result = outcome.type_name or repr(value)
    raise EnvironmentFault(
        f"environment {task.environment}, task {task.id}: payload.answer: check gave {result:.200}: "
        "allowed: true, false, a number from 0 to 1, or [number, text]"
    )

"""Judges the final answer of a task with tools.

Checks of the payload run in the sandbox: in an execution of their own, or after the calls where they see the state.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from env_workers.code.outcome import Call, Outcome
from env_workers.tools.execution import Result, ToolRunner
from env_workers.tools.refusals import described, located
from env_workers.tools.toolbox import CHECK, Answer, Toolbox
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


def grade(task: Task, toolbox: Toolbox, given: str, results: Sequence[Result], runner: ToolRunner) -> Grade:
    """Grade the answer `given`; `runner` ran the calls that gave `results`.

    Raises EnvironmentFault for a check that gives no score, and what the sandbox raises.
    """
    answer = toolbox.answer
    if answer.kind == "exact":
        return Grade(score=float(given.split() == answer.text.split()))
    if answer.kind == "number":
        return _grade_number(answer, given)
    calls = [
        {"name": r.call.name, "arguments": r.call.arguments, "result": r.text, "failed": r.failed} for r in results
    ]
    call = Call(function=CHECK, args=(given, calls))
    if answer.sees_state:
        return _read(task, toolbox, runner.checked(call))
    source = answer.text if answer.kind == "check" else _PATTERN.format(pattern=answer.text)
    return _read(task, toolbox, runner.alone(source, call))


def _grade_number(answer: Answer, given: str) -> Grade:
    if not _NUMBER.fullmatch(given) or not any(c.isdigit() for c in given):
        return Grade(score=0.0, text="The answer must be a number alone.")
    value = float(given.replace(",", ""))
    return Grade(score=float(math.isclose(value, answer.number, rel_tol=answer.tolerance, abs_tol=answer.tolerance)))


def _error(toolbox: Toolbox, outcome: Outcome) -> str:
    if not outcome.frames:
        return described(outcome)
    key, line = located(toolbox.check_parts, outcome.frames[-1][0])
    return f"{described(outcome)} (line {line} of {'the check' if key == 'answer.source' else key})"


def _read(task: Task, toolbox: Toolbox, outcome: Outcome) -> Grade:
    value = outcome.value
    score, text = value if isinstance(value, list | tuple) and len(value) == 2 else (value, "")
    sound = isinstance(text, str) and isinstance(score, bool | int | float) and 0 <= score <= 1
    if outcome.status == "returned" and sound:
        return Grade(score=float(score), text=text)
    if outcome.status not in ("returned", "returned_other"):
        return Grade(score=0.0, text="It could not be checked.", error=_error(toolbox, outcome))
    result = outcome.type_name or repr(value)
    raise EnvironmentFault(
        f"environment {task.environment}, task {task.id}: payload.answer: check gave {result:.200}: "
        "allowed: true, false, a number from 0 to 1, or [number, text]"
    )

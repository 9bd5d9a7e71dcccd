"""What is said about Python of a task that does not load."""

import re
from collections.abc import Sequence

from env_workers.code.outcome import Outcome
from env_workers.tools.toolbox import Toolbox
from sdpo.errors import TaskFileError

_LINE_END = re.compile(r"\r\n|\r|\n")


def not_loaded(toolbox: Toolbox, outcome: Outcome) -> TaskFileError:
    """Return the error for tools that do not load: the task, its key, the line there, and the exception."""
    key, line = located(toolbox.parts, line_of(outcome))
    allowed = "allowed: Python that loads in the sandbox"
    return TaskFileError(f"task {toolbox.task_id}: payload.{key}, line {line}: {described(outcome)}; {allowed}")


def located(parts: Sequence[tuple[str, str]], line: int) -> tuple[str, int]:
    """Return the key of the part that holds a line of the joined program, and the line there."""
    key = ""
    for key, text in parts:  # noqa: B007
        num_lines = len(_LINE_END.split(text))
        if line <= num_lines:
            break
        line -= num_lines + 1
    return key, max(line, 1)


def described(outcome: Outcome) -> str:
    """Return `NameError: name 'x' is not defined`, or the limit or end of an outcome, on one line."""
    text = f"{outcome.type_name}: {outcome.message}" if outcome.type_name else outcome.status
    return " ".join(text.split())[:300]


def line_of(outcome: Outcome) -> int:
    """Return the line of a syntax error or of the innermost frame; 1 where none is known."""
    return outcome.line or (outcome.frames[-1][0] if outcome.frames else 1)

"""The words an attempt gets back, in the manner of an online judge (paper, section 4; reference formats).

Priority: a syntax or runtime error, then a limit, then up to two wrong answers, the shortest first. Deterministic:
addresses, paths and durations are scrubbed. A model may be pretrained on this wording: change it together with
FEEDBACK_VERSION.
"""

import re
from collections.abc import Sequence
from typing import Any

from env_workers.code.outcome import Outcome
from env_workers.code.tests import FunctionalTest, StdinTest, Test

FEEDBACK_VERSION = "1"
MAX_CHARS = 2000
MAX_LINE_CHARS = 250
MAX_LINES = 8
MAX_INPUT_CHARS = 1000
MAX_WRONG_ANSWERS = 2
MAX_SHOW_DEPTH = 64

NO_PROGRAM = "Wrong Format\nNo program was found. Put the whole program in one block: ```python, the code, ```."
TRUNCATED = "Wrong Format\nThe response was cut at the length limit before the program ended. Write a shorter response."
VIOLATION = "Sandbox Violation\nThe program broke the sandbox that it ran in."

LIMIT_TITLES = {
    "timeout": "Time Limit Exceeded",
    "memory_limit": "Memory Limit Exceeded",
    "output_limit": "Output Limit Exceeded",
    "process_limit": "Process Limit Exceeded",
}

_ADDRESS = re.compile(r"\b0x[0-9a-fA-F]{6,}\b")
_PATH = re.compile(r"(?<![\w./])/(?:[\w.+-]+/)+[\w.+-]*")
_DURATION = re.compile(r"\b\d+(?:\.\d+)? ?(?:ns|us|µs|ms|s|sec|secs|seconds|minutes)\b")


def runtime_error(outcome: Outcome, test: Test) -> str:
    """An exception, an exit or a death by signal, with up to three frames and the input that provoked it."""
    lines = ["Runtime Error", _error_line(outcome)]
    lines += [f"Line {line} in {function} (Solution.py)" for line, function in outcome.frames]
    return _cap("\n".join([*lines, _labelled("Last Executed Input", show_input(test))]))


def syntax_error(outcome: Outcome) -> str:
    """What the compiler said, with the offending line."""
    lines = ["Syntax Error", f"{outcome.type_name}: {_clip(_scrub(outcome.message))}"]
    if outcome.line:
        lines.append(f"Line {outcome.line} (Solution.py): {_clip(outcome.text)}")
    return _cap("\n".join(lines))


def limit_exceeded(outcome: Outcome, test: Test) -> str:
    """The name of the limit that ended the program, and the input it was working on."""
    return _cap(f"{LIMIT_TITLES[outcome.status]}\n{_labelled('Last Executed Input', show_input(test))}")


def wrong_answers(failures: Sequence[tuple[int, Outcome, Test]]) -> str:
    """Up to two failed tests (index from 0, outcome, test) that fit, the shortest input and output first."""

    def length(failure: tuple[int, Outcome, Test]) -> tuple[int, int]:
        index, outcome, test = failure
        return len(show_input(test)) + len(_show_output(outcome)), index

    blocks = [_wrong_answer(*failure) for failure in sorted(failures, key=length)[:MAX_WRONG_ANSWERS]]
    text = "\n\n".join(blocks)
    return _cap(text if len(text) <= MAX_CHARS else blocks[0])


def show_input(test: Test) -> str:
    """A functional test's call, for example `f([1, 2], 3)`; a stdin test's text, within the caps."""
    if isinstance(test, StdinTest):
        lines = [_clip(line) for line in test.input.rstrip("\n").split("\n")]
        kept = 1
        while kept < min(len(lines), MAX_LINES) and sum(map(len, lines[: kept + 1])) <= MAX_INPUT_CHARS:
            kept += 1
        return "\n".join(lines[:kept] + ([f"... ({len(lines) - kept} more lines)"] if kept < len(lines) else []))
    return _clip(f"{test.function}({', '.join(show(value) for value in test.inputs)})")


def show(value: Any, depth: int = 0) -> str:
    """As `repr`, but sets are sorted and neither long integers nor deep nesting can fail."""
    if depth > MAX_SHOW_DEPTH:
        return "..."
    if isinstance(value, int) and value.bit_length() > 4000:
        return f"an integer of {value.bit_length()} bits"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{show(k, depth + 1)}: {show(v, depth + 1)}" for k, v in value.items()) + "}"
    if isinstance(value, set | frozenset):
        body = "{" + ", ".join(sorted(show(item, depth + 1) for item in value)) + "}" if value else ""
        return body if body and isinstance(value, set) else f"{type(value).__name__}({body})"
    if isinstance(value, list | tuple):
        items = [show(item, depth + 1) for item in value]
        if isinstance(value, list):
            return f"[{', '.join(items)}]"
        return f"({items[0]},)" if len(items) == 1 else f"({', '.join(items)})"
    return repr(value)


def _wrong_answer(index: int, outcome: Outcome, test: Test) -> str:
    expected = show(test.expected) if isinstance(test, FunctionalTest) else test.expected
    return "\n".join(
        [
            f"Test Case {index + 1}: Wrong Answer",
            _labelled("Input", show_input(test)),
            _labelled("Output", _clip(_show_output(outcome))),
            _labelled("Expected", _clip(expected.rstrip("\n"))),
        ]
    )


def _show_output(outcome: Outcome) -> str:
    if outcome.status == "returned":
        return _ADDRESS.sub("0x...", show(outcome.value))
    if outcome.status == "printed":
        return _ADDRESS.sub("0x...", outcome.text.rstrip("\n"))
    return outcome.type_name


def _error_line(outcome: Outcome) -> str:
    if outcome.status == "exited":
        return f"The process ended with exit code {outcome.code}."
    if outcome.status == "killed":
        return f"The process was killed by signal {outcome.code}."
    if outcome.status == "garbled":
        return "The process ended without a result."
    message = _clip(_scrub(outcome.message))
    return f"{outcome.type_name}: {message}" if message else outcome.type_name


def _labelled(label: str, text: str) -> str:
    return f"{label}:\n{text}" if "\n" in text else f"{label}: {text}"


def _scrub(message: str) -> str:
    return _DURATION.sub("<time>", _PATH.sub("<path>", _ADDRESS.sub("0x...", message)))


def _clip(text: str, limit: int = MAX_LINE_CHARS) -> str:
    return text if len(text) <= limit else text[:limit] + "..."


def _cap(text: str) -> str:
    return _clip(text.encode("utf-8", "backslashreplace").decode(), MAX_CHARS - 3)

"""The feedback on an attempt, in the manner of an online judge (paper, section 4; reference formats).

Priority: a syntax or runtime error, then a limit, then up to two wrong answers, the shortest first. Deterministic:
addresses, paths and durations are scrubbed. A model may be pretrained on this wording: change it together with
FEEDBACK_VERSION.
"""

from collections.abc import Sequence

from env_workers.code.outcome import LIMIT_TITLES, Call, Outcome
from env_workers.code.show import clip, clip_lines, printable, scrub, show
from env_workers.code.tests import AssertGroup, FunctionalTest, StdinTest, Test

FEEDBACK_VERSION = "1"
MAX_CHARS = 2000
MAX_INPUT_CHARS = 1000
MAX_WRONG_ANSWERS = 2

NO_PROGRAM = "Wrong Format\nNo program was found. Put the whole program in one block: ```python, the code, ```."
TRUNCATED = "Wrong Format\nThe response was cut at the length limit before the program ended. Write a shorter response."
VIOLATION = "Sandbox Violation\nThe program broke the sandbox that it ran in."


def runtime_error(outcome: Outcome, test: Test) -> str:
    """Describe an exception, an exit or a death by signal, with up to three frames and the input that provoked it."""
    lines = ["Runtime Error", _error_line(outcome)]
    lines += [f"Line {line} in {function} (Solution.py)" for line, function in outcome.frames]
    return _cap("\n".join([*lines, _labelled("Last Executed Input", show_input(test, outcome))]))


def syntax_error(outcome: Outcome) -> str:
    """Describe a syntax error, with the offending line."""
    lines = ["Syntax Error", f"{outcome.type_name}: {clip(scrub(outcome.message))}"]
    if outcome.line:
        lines.append(f"Line {outcome.line} (Solution.py): {clip(outcome.text)}")
    return _cap("\n".join(lines))


def limit_exceeded(outcome: Outcome, test: Test) -> str:
    """Name the limit that ended the program, and the input that it was working on."""
    return _cap(f"{LIMIT_TITLES[outcome.status]}\n{_labelled('Last Executed Input', show_input(test, outcome))}")


def wrong_answers(failures: Sequence[tuple[int, Outcome, Test]]) -> str:
    """Describe up to two failed tests (index from 0, outcome, test) that fit, the shortest input and output first."""

    def length(failure: tuple[int, Outcome, Test]) -> tuple[int, int]:
        index, outcome, test = failure
        return len(show_input(test, outcome)) + len(scrub(_output(outcome))), index

    blocks = [_wrong_answer(*failure) for failure in sorted(failures, key=length)[:MAX_WRONG_ANSWERS]]
    text = "\n\n".join(blocks)
    return _cap(text if len(text) <= MAX_CHARS else blocks[0])


def show_input(test: Test, outcome: Outcome) -> str:
    """Return the call, for example `f([1, 2], 3)`, or a stdin test's text, within the caps.

    An assert's call is the last one it made; without one the assert itself is shown.
    """
    if isinstance(test, StdinTest):
        return clip_lines(test.input, MAX_INPUT_CHARS)
    if isinstance(test, FunctionalTest):
        return _show_call(Call(function=test.function, args=test.inputs))
    return clip(outcome.text or test.source) if outcome.call is None else _show_call(outcome.call)


def _show_call(call: Call) -> str:
    arguments = [show(value) for value in call.args] + [f"{name}={show(value)}" for name, value in call.kwargs]
    return clip(f"{call.function}({', '.join(arguments)})")


def _wrong_answer(index: int, outcome: Outcome, test: Test) -> str:
    expected = _expected(outcome, test)
    known = () if isinstance(test, AssertGroup) and outcome.call is None else (expected, _whole_input(outcome, test))
    return "\n".join(
        [
            f"Test Case {index + 1}: Wrong Answer",
            _labelled("Input", show_input(test, outcome)),
            _labelled("Output", clip(scrub(_output(outcome), *known))),
            _labelled("Expected", clip(expected)),
        ]
    )


def _expected(outcome: Outcome, test: Test) -> str:
    if isinstance(test, StdinTest):
        return test.expected.rstrip("\n")
    if isinstance(test, FunctionalTest):
        return show(test.expected).rstrip("\n")
    return show(outcome.expected[0]) if outcome.expected else outcome.text or test.source


def _whole_input(outcome: Outcome, test: Test) -> str:
    if isinstance(test, StdinTest):
        return test.input
    return show(test.inputs if isinstance(test, FunctionalTest) else outcome.call and outcome.call.args)


def _output(outcome: Outcome) -> str:
    if outcome.status == "returned" or outcome.output:
        return show(outcome.value if outcome.status == "returned" else outcome.output[0])
    if outcome.status == "printed":
        return outcome.text.rstrip("\n")
    return outcome.type_name or outcome.message or "none"


def _error_line(outcome: Outcome) -> str:
    if outcome.status == "exited":
        return f"The process ended with exit code {outcome.code}."
    if outcome.status == "killed":
        return f"The process was killed by signal {outcome.code}."
    if outcome.status == "garbled":
        return "The process ended without a result."
    message = clip(scrub(outcome.message))
    return f"{outcome.type_name}: {message}" if message else outcome.type_name


def _labelled(label: str, text: str) -> str:
    return f"{label}:\n{text}" if "\n" in text else f"{label}: {text}"


def _cap(text: str) -> str:
    text = printable(text)
    return text if len(text) <= MAX_CHARS - 3 else clip(text, MAX_CHARS - 40)

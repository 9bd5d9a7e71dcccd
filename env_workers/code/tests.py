"""The tests of a coding task, parsed from `Task.payload`. Expected outputs stay here and never enter a sandbox."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from env_workers.code import proxies
from env_workers.code.capacity import answer_bytes, output_bytes, too_large
from env_workers.code.compare import COMPARISONS, Comparison
from env_workers.code.grouping import NotGroupable, group_asserts, group_check
from env_workers.code.outcome import Call
from env_workers.code.plain_asserts import PlainAssert, plain_asserts
from env_workers.environment import AssertProgram
from env_workers.payloads import flag_at, list_at, only_keys, refuse, seconds_at, text_at, texts_at
from env_workers.runner.codec import TooLargeError, UnsupportedError, encode
from sdpo.errors import TaskFileError
from sdpo.types import Task

MAX_TEST_BYTES = 4 * 2**20
MAX_INPUT_BYTES = 128 * 2**20
_text = partial(text_at, blank=True, max_chars=MAX_TEST_BYTES)
_texts = partial(texts_at, max_chars=MAX_TEST_BYTES)


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionalTest:
    """Call `function(*inputs)`; the return value must equal `expected` (`env_workers.code.compare`)."""

    function: str
    inputs: tuple[Any, ...]
    expected: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class StdinTest:
    """Run the program as a script with `input` on stdin; its stdout must equal `expected`."""

    input: str
    expected: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AssertGroup:
    """One group of `AssertProgram`; it must pass. `source` is the group's."""

    source: str


Test = FunctionalTest | StdinTest | AssertGroup


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeTests:
    """At least one test; `time_limit_s` is the wall time of one test, None for the run's `env.time_limit_s`.

    `asserts`: the tests are the groups of these. `open`: they are run in the program's own process. `plain_asserts`:
    the groups as calls, where all are of that form. `comparison`: how outputs are compared (not those of asserts).
    """

    tests: tuple[Test, ...]
    time_limit_s: float | None = None
    comparison: Comparison = "value"
    asserts: AssertProgram | None = None
    open: bool = False
    plain_asserts: tuple[PlainAssert, ...] | None = None


class UnsupportedAsserts(TaskFileError):
    """Asserts that need what a proxy of the program cannot carry; `reason` says what."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple[type["UnsupportedAsserts"], tuple[str, str]]:
        return type(self), (str(self), self.reason)


def parse_tests(task: Task) -> CodeTests:
    """Read `task.payload`; raises TaskFileError that names the task and the key."""
    payload = only_keys(task, task.payload, ("tests", "time_limit_s", "comparison"))
    tests = list_at(task, payload, "tests", of="test")
    time_limit_s = seconds_at(task, payload)
    comparison = payload.get("comparison", "value")
    if comparison not in COMPARISONS:
        raise refuse(task, "comparison", comparison, ", ".join(COMPARISONS))
    if any(isinstance(test, Mapping) and test.get("kind") == "asserts" for test in tests):
        if comparison != "value":
            raise refuse(task, "comparison", comparison, "value, for asserts, which compare by themselves")
        return _asserts(task, tests, time_limit_s)
    parsed = CodeTests(
        tests=tuple(_parse_test(task, i, test) for i, test in enumerate(tests)),
        time_limit_s=time_limit_s,
        comparison=comparison,
    )
    num_bytes = len(json.dumps(calls_of(parsed)))
    if num_bytes > MAX_INPUT_BYTES:
        raise TaskFileError(f"task {task.id}: payload.tests has {num_bytes} bytes of inputs; at most {MAX_INPUT_BYTES}")
    return parsed


def calls_of(tests: CodeTests) -> list[dict[str, Any]]:
    """Return what `Executor.execute` takes of the tests: the inputs, encoded, and the bytes that an answer may take."""
    return [_call(test) for test in tests.tests]


def answers_of(tests: CodeTests) -> list[int]:
    """Return `capacity.answer_bytes` of each test; there are no asserts among them."""
    given = [test for test in tests.tests if not isinstance(test, AssertGroup)]
    return [answer_bytes(test.expected, printed=isinstance(test, StdinTest)) for test in given]


def _call(test: Test) -> dict[str, Any]:
    assert not isinstance(test, AssertGroup)
    printed = isinstance(test, StdinTest)
    needed = {"max_output_bytes": output_bytes(test.expected, printed=printed)}
    if isinstance(test, StdinTest):
        return {"kind": "stdin", "input": test.input} | needed
    return Call(function=test.function, args=test.inputs).record(MAX_TEST_BYTES) | needed


def _parse_test(task: Task, index: int, test: Any) -> Test:
    key = f"tests[{index}]"
    if not isinstance(test, Mapping):
        raise refuse(task, key, test, "a mapping")
    kind = test.get("kind")
    if kind == "functional":
        return _functional(task, key, test)
    if kind == "stdin":
        only_keys(task, test, ("kind", "input", "expected"), key)
        _check_answer(task, key, expected := _text(task, test, "expected", key), printed=True)
        return StdinTest(input=_text(task, test, "input", key), expected=expected)
    raise refuse(task, f"{key}.kind", kind, "functional, stdin or asserts")


def _asserts(task: Task, tests: Sequence[Any], time_limit_s: float | None) -> CodeTests:
    """{"kind": "asserts", "functions": [...], "asserts": [...]} or {..., "entry_point": ..., "check": ...}.

    Both may have `setup` (source that the asserts need) and `open`.
    """
    key, test = "tests[0]", tests[0]
    if len(tests) != 1:
        raise refuse(task, "tests", len(tests), "one test, where one is of kind asserts")
    by_check = "check" in test
    own = {"entry_point", "check"} if by_check else {"functions", "asserts"}
    only_keys(task, test, {"kind", "setup", "open"} | own, key)
    setup = _text(task, test, "setup", key) if "setup" in test else ""
    functions = (_text(task, test, "entry_point", key),) if by_check else _texts(task, test, "functions", key)
    for name in functions:
        if not name.isidentifier():
            raise refuse(task, f"{key}.functions", name, "Python identifiers")
    in_the_open = flag_at(task, test, "open", key)
    try:
        if by_check:
            before, groups = group_check(_text(task, test, "check", key), functions[0])
            setup = f"{setup}\n{before}".strip()
        else:
            groups = group_asserts(_texts(task, test, "asserts", key))
        reason = None if in_the_open else proxies.what_cannot_be_carried(setup, groups, functions)
    except NotGroupable as error:
        raise TaskFileError(f"task {task.id}: payload.{key}: {error}") from None
    except SyntaxError as error:
        raise TaskFileError(f"task {task.id}: payload.{key}.setup is not Python: {error.msg}") from None
    if reason is not None:
        raise UnsupportedAsserts(f"task {task.id}: payload.{key} needs {reason}; see docs/assert-tests.md", reason)
    program = AssertProgram(functions=functions, source=setup, groups=groups)
    each = tuple(AssertGroup(source=source) for source in groups)
    plain = None if in_the_open else plain_asserts(program)
    return CodeTests(tests=each, time_limit_s=time_limit_s, asserts=program, open=in_the_open, plain_asserts=plain)


def _functional(task: Task, key: str, test: Mapping[str, Any]) -> FunctionalTest:
    only_keys(task, test, ("kind", "function", "inputs", "expected"), key)
    function = _text(task, test, "function", key)
    if not function.isidentifier():
        raise refuse(task, f"{key}.function", function, "a Python identifier")
    inputs = test.get("inputs")
    if not isinstance(inputs, list | tuple):
        raise refuse(task, f"{key}.inputs", inputs, "the list of the call's arguments")
    if "expected" not in test:
        raise TaskFileError(f"task {task.id}: payload.{key}.expected is missing")
    for name, value in (("inputs", list(inputs)), ("expected", test["expected"])):
        where = f"task {task.id}: payload.{key}.{name}"
        try:
            encode(value, MAX_TEST_BYTES)
        except TooLargeError:
            raise TaskFileError(f"{where} is larger than {MAX_TEST_BYTES} bytes") from None
        except UnsupportedError as error:
            raise TaskFileError(f"{where} holds {error}, which a test cannot carry") from None
    _check_answer(task, key, test["expected"], printed=False)
    return FunctionalTest(function=function, inputs=tuple(inputs), expected=test["expected"])


def _check_answer(task: Task, key: str, expected: Any, *, printed: bool) -> None:
    if (reason := too_large(expected, printed=printed)) is not None:
        raise TaskFileError(f"task {task.id}: payload.{key}.expected {reason}")

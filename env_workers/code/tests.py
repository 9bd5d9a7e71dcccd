"""The tests of a coding task, parsed from `Task.payload`. Expected outputs stay here and never enter a sandbox."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from env_workers.code import proxies
from env_workers.code.grouping import NotGroupable, group_asserts, group_check
from env_workers.code.plain_asserts import PlainAssert, plain_asserts
from env_workers.environment import AssertProgram
from env_workers.runner.codec import TooLargeError, UnsupportedError, encode
from sdpo.config import EnvConfig
from sdpo.errors import TaskFileError
from sdpo.types import Task

MAX_TEST_BYTES = 4 * 2**20
MAX_BATCH_BYTES = 8 * 2**20
"""Inputs of one execution; a program with more of them is executed several times."""
MAX_INPUT_BYTES = 128 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionalTest:
    """Call `function(*inputs)`; the return value must equal `expected` in value and type."""

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
    the groups as calls, where all are of that form.
    """

    tests: tuple[Test, ...]
    time_limit_s: float | None = None
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
    """Reads `task.payload`; raises TaskFileError that names the task and the key."""
    payload = task.payload
    _refuse_unknown(task, "payload", payload, {"tests", "time_limit_s"})
    tests = payload.get("tests")
    if not isinstance(tests, list | tuple) or not tests:
        raise _error(task, "payload.tests", tests, "a list of at least one test")
    time_limit_s = payload.get("time_limit_s")
    if time_limit_s is not None and (type(time_limit_s) not in (int, float) or not 0 < time_limit_s < float("inf")):
        raise _error(task, "payload.time_limit_s", time_limit_s, "a number of seconds above 0")
    if any(isinstance(test, Mapping) and test.get("kind") == "asserts" for test in tests):
        return _asserts(task, tests, time_limit_s)
    parsed = CodeTests(
        tests=tuple(_parse_test(task, i, test) for i, test in enumerate(tests)), time_limit_s=time_limit_s
    )
    num_bytes = len(json.dumps(calls_of(parsed)))
    if num_bytes > MAX_INPUT_BYTES:
        raise TaskFileError(f"task {task.id}: payload.tests has {num_bytes} bytes of inputs; at most {MAX_INPUT_BYTES}")
    return parsed


def check_open(task: Task, config: EnvConfig) -> None:
    """Raises TaskFileError for a task with open asserts that `config` does not allow."""
    tests = task.payload.get("tests")
    for test in tests if isinstance(tests, list | tuple) else ():
        asks = isinstance(test, Mapping) and test.get("kind") == "asserts" and test.get("open") is True
        if asks and not config.allow_open_asserts:
            raise TaskFileError(
                f"task {task.id}: payload.tests[0].open=true: allowed: only with env.allow_open_asserts=true, for the "
                "program can then read and forge its tests"
            )


def calls_of(tests: CodeTests) -> list[dict[str, Any]]:
    """What the sandbox gets to see of the tests: the inputs, encoded for the runner."""
    return [_call(test) for test in tests.tests]


def batches_of(calls: Sequence[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """The calls in their order, cut so that the JSON of each part has at most MAX_BATCH_BYTES."""
    part: list[dict[str, Any]] = []
    left_bytes = MAX_BATCH_BYTES
    for call in calls:
        num_bytes = len(json.dumps(call)) + 2
        if part and num_bytes > left_bytes:
            yield part
            part, left_bytes = [], MAX_BATCH_BYTES
        part.append(call)
        left_bytes -= num_bytes
    yield part


def _call(test: Test) -> dict[str, Any]:
    if isinstance(test, StdinTest):
        return {"kind": "stdin", "input": test.input}
    assert isinstance(test, FunctionalTest)
    inputs = [encode(value, MAX_TEST_BYTES) for value in test.inputs]
    return {"kind": "functional", "function": test.function, "inputs": inputs}


def _parse_test(task: Task, index: int, test: Any) -> Test:
    key = f"payload.tests[{index}]"
    if not isinstance(test, Mapping):
        raise _error(task, key, test, "a mapping")
    kind = test.get("kind")
    if kind == "functional":
        return _functional(task, key, test)
    if kind == "stdin":
        _refuse_unknown(task, key, test, {"kind", "input", "expected"})
        return StdinTest(input=_text(task, key, test, "input"), expected=_text(task, key, test, "expected"))
    raise _error(task, f"{key}.kind", kind, "functional, stdin or asserts")


def _asserts(task: Task, tests: Sequence[Any], time_limit_s: float | None) -> CodeTests:
    """{"kind": "asserts", "functions": [...], "asserts": [...]} or {..., "entry_point": ..., "check": ...}.

    Both may have `setup` (source that the asserts need) and `open`.
    """
    key, test = "payload.tests[0]", tests[0]
    if len(tests) != 1:
        raise _error(task, "payload.tests", len(tests), "one test, where one is of kind asserts")
    by_check = "check" in test
    own = {"entry_point", "check"} if by_check else {"functions", "asserts"}
    _refuse_unknown(task, key, test, {"kind", "setup", "open"} | own)
    setup = _text(task, key, test, "setup") if "setup" in test else ""
    functions = (_text(task, key, test, "entry_point"),) if by_check else _texts(task, key, test, "functions")
    for name in functions:
        if not name.isidentifier():
            raise _error(task, f"{key}.functions", name, "Python identifiers")
    in_the_open = test.get("open", False)
    if not isinstance(in_the_open, bool):
        raise _error(task, f"{key}.open", in_the_open, "true, false")
    try:
        if by_check:
            cut = group_check(_text(task, key, test, "check"), functions[0])
            setup, groups = f"{setup}\n{cut.setup}".strip(), cut.groups
        else:
            groups = group_asserts(_texts(task, key, test, "asserts"))
        reason = None if in_the_open else proxies.what_cannot_be_carried(setup, groups, functions)
    except NotGroupable as error:
        raise TaskFileError(f"task {task.id}: {key}: {error}") from None
    except SyntaxError as error:
        raise TaskFileError(f"task {task.id}: {key}.setup is not Python: {error.msg}") from None
    if reason is not None:
        raise UnsupportedAsserts(f"task {task.id}: {key} needs {reason}; see docs/assert-tests.md", reason)
    program = AssertProgram(functions=functions, source=setup, groups=groups)
    parts = tuple(AssertGroup(source=source) for source in groups)
    plain = None if in_the_open else plain_asserts(program)
    return CodeTests(tests=parts, time_limit_s=time_limit_s, asserts=program, open=in_the_open, plain_asserts=plain)


def _functional(task: Task, key: str, test: Mapping[str, Any]) -> FunctionalTest:
    _refuse_unknown(task, key, test, {"kind", "function", "inputs", "expected"})
    function = _text(task, key, test, "function")
    if not function.isidentifier():
        raise _error(task, f"{key}.function", function, "a Python identifier")
    inputs = test.get("inputs")
    if not isinstance(inputs, list | tuple):
        raise _error(task, f"{key}.inputs", inputs, "the list of the call's arguments")
    if "expected" not in test:
        raise TaskFileError(f"task {task.id}: {key}.expected is missing")
    for name, value in (("inputs", list(inputs)), ("expected", test["expected"])):
        try:
            encode(value, MAX_TEST_BYTES)
        except TooLargeError:
            raise TaskFileError(f"task {task.id}: {key}.{name} is larger than {MAX_TEST_BYTES} bytes") from None
        except UnsupportedError as error:
            raise TaskFileError(f"task {task.id}: {key}.{name} holds {error}, which a test cannot carry") from None
    return FunctionalTest(function=function, inputs=tuple(inputs), expected=test["expected"])


def _text(task: Task, key: str, test: Mapping[str, Any], name: str) -> str:
    value = test.get(name)
    if not isinstance(value, str):
        raise _error(task, f"{key}.{name}", value, "a string")
    if len(value) > MAX_TEST_BYTES:
        raise TaskFileError(f"task {task.id}: {key}.{name} is longer than {MAX_TEST_BYTES} characters")
    return value


def _texts(task: Task, key: str, test: Mapping[str, Any], name: str) -> tuple[str, ...]:
    value = test.get(name)
    if not isinstance(value, list | tuple) or not value or not all(isinstance(item, str) for item in value):
        raise _error(task, f"{key}.{name}", value, "a list of at least one string")
    if sum(map(len, value)) > MAX_TEST_BYTES:
        raise TaskFileError(f"task {task.id}: {key}.{name} is longer than {MAX_TEST_BYTES} characters")
    return tuple(value)


def _refuse_unknown(task: Task, key: str, mapping: Mapping[str, Any], allowed: set[str]) -> None:
    unknown = sorted(set(mapping) - allowed)
    if unknown:
        names = ", ".join(sorted(allowed))
        raise TaskFileError(f"task {task.id}: {key} has the unknown key {unknown[0]!r}; allowed: {names}")


def _error(task: Task, key: str, value: Any, allowed: str) -> TaskFileError:
    return TaskFileError(f"task {task.id}: {key} is {value!r:.100}; allowed: {allowed}")

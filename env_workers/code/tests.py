"""The tests of a coding task, parsed from `Task.payload`. Expected outputs stay here and never enter a sandbox."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from env_workers.runner import TooLargeError, UnsupportedError, encode
from sdpo.errors import TaskFileError
from sdpo.types import Task

MAX_TEST_BYTES = 2**20
MAX_INPUT_BYTES = 8 * 2**20


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


Test = FunctionalTest | StdinTest


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeTests:
    """At least one test; `time_limit_s` is the wall time of one test, None for the run's `env.time_limit_s`."""

    tests: tuple[Test, ...]
    time_limit_s: float | None = None


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
    parsed = CodeTests(
        tests=tuple(_parse_test(task, i, test) for i, test in enumerate(tests)), time_limit_s=time_limit_s
    )
    num_bytes = len(json.dumps(calls_of(parsed)))
    if num_bytes > MAX_INPUT_BYTES:
        raise TaskFileError(f"task {task.id}: payload.tests has {num_bytes} bytes of inputs; at most {MAX_INPUT_BYTES}")
    return parsed


def calls_of(tests: CodeTests) -> list[dict[str, Any]]:
    """What the sandbox gets to see of the tests: the inputs, encoded for the runner."""
    return [_call(test) for test in tests.tests]


def _call(test: Test) -> dict[str, Any]:
    if isinstance(test, StdinTest):
        return {"kind": "stdin", "input": test.input}
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
    raise _error(task, f"{key}.kind", kind, "functional or stdin")


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


def _refuse_unknown(task: Task, key: str, mapping: Mapping[str, Any], allowed: set[str]) -> None:
    unknown = sorted(set(mapping) - allowed)
    if unknown:
        names = ", ".join(sorted(allowed))
        raise TaskFileError(f"task {task.id}: {key} has the unknown key {unknown[0]!r}; allowed: {names}")


def _error(task: Task, key: str, value: Any, allowed: str) -> TaskFileError:
    return TaskFileError(f"task {task.id}: {key} is {value!r:.100}; allowed: {allowed}")

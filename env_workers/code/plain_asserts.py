"""Asserts that need no judge process: `f(literals) == literal` is a call, and its value is compared out here.

Most asserts of MBPP and many of HumanEval are of this form. They come to what the judge would say (see
`env_workers.runner.asserts`) in one execution of one sandbox.
"""

import ast
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from env_workers.code import capacity
from env_workers.code.outcome import Call, Outcome
from env_workers.environment import AssertProgram
from env_workers.runner.codec import TooLargeError, UnsupportedError, encode, size_of

MAX_CALLS_BYTES = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainAssert:
    """`text` is the assert's source, `record` the call for `Executor.execute`."""

    text: str
    call: Call
    expected: Any
    record: dict[str, Any]


def plain_asserts(test: AssertProgram) -> tuple[PlainAssert, ...] | None:
    """Return the groups as calls, in order; None when one of them is more than a call compared with a literal."""
    read = [_read(group, test.functions) for group in test.groups]
    asserts = tuple(plain for plain in read if plain is not None)
    fit = sum(size_of(plain.expected) for plain in asserts) <= capacity.MAX_VALUE_BYTES
    return asserts if fit and len(asserts) == len(read) else None


def read_plain_outcomes(outcomes: Sequence[Outcome], asserts: Sequence[PlainAssert]) -> list[Outcome]:
    """Return the outcomes of those calls, made in one shared module, in the judge's words."""
    return [_judge(outcome, plain) for outcome, plain in zip(outcomes, asserts, strict=True)]


def _judge(outcome: Outcome, plain: PlainAssert) -> Outcome:
    if outcome.status == "not_run":
        return outcome
    failed = Outcome(status="failed", text=plain.text, call=plain.call, expected=(plain.expected,))
    if outcome.status == "returned":
        # both sides are of built-in types: nothing of the program's decides what == means
        equal = outcome.value == plain.expected
        return Outcome(status="passed") if equal else replace(failed, output=(outcome.value,))
    if outcome.status == "returned_other":
        return replace(failed, type_name=outcome.type_name)
    return replace(outcome, call=plain.call)


def _read(group: str, functions: Sequence[str]) -> PlainAssert | None:
    statements = ast.parse(group).body
    if len(statements) != 1 or not isinstance(statements[0], ast.Assert):
        return None
    test = statements[0].test
    if not isinstance(test, ast.Compare) or len(test.ops) != 1 or not isinstance(test.ops[0], ast.Eq):
        return None
    left, right = test.left, test.comparators[0]
    called, expected = (left, right) if isinstance(left, ast.Call) else (right, left)
    if not isinstance(called, ast.Call) or not isinstance(called.func, ast.Name) or called.func.id not in functions:
        return None
    try:
        value = ast.literal_eval(expected)
        call = Call(
            function=called.func.id,
            args=tuple(ast.literal_eval(argument) for argument in called.args),
            kwargs=tuple((str(k.arg), ast.literal_eval(k.value)) for k in called.keywords if k.arg is not None),
        )
        if len(call.kwargs) != len(called.keywords):
            return None
        encode(value, MAX_CALLS_BYTES)
        needed = {"max_output_bytes": capacity.output_bytes(value, printed=False)}
        record = {**call.record(MAX_CALLS_BYTES), "plain": True, **needed}
    except (ValueError, TypeError, MemoryError, RecursionError, UnsupportedError, TooLargeError):
        return None
    text = f"assert {ast.get_source_segment(group, test)}"
    return PlainAssert(text=text, call=call, expected=value, record=record)

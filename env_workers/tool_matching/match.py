"""Equality of calls, and which of the model's calls answer which of the expected ones. Pure."""

import math
from collections.abc import Sequence
from typing import Any

from env_workers.calling.notations import Call
from env_workers.tool_matching.payload import Expected

RELATIVE_TOLERANCE = 1e-9


def same_json(given: Any, wanted: Any) -> bool:
    """Equal as JSON: by type and value. Numbers are one type: 2 equals 2.0; true is not 1, "1" is not 1.

    Two integers must be the same; where one is a float, both must agree to RELATIVE_TOLERANCE. The order of an object's
    keys does not count, that of an array's items does.
    """
    if isinstance(given, bool) or isinstance(wanted, bool):
        return given is wanted
    if isinstance(given, int) and isinstance(wanted, int):
        return given == wanted
    if isinstance(given, int | float) and isinstance(wanted, int | float):
        return _close(given, wanted)
    if isinstance(given, list) and isinstance(wanted, list | tuple):
        return len(given) == len(wanted) and all(map(same_json, given, wanted))
    if isinstance(given, dict) and isinstance(wanted, dict):
        return given.keys() == wanted.keys() and all(same_json(given[key], wanted[key]) for key in given)
    return type(given) is type(wanted) and bool(given == wanted)


def same_call(call: Call, wanted: Expected) -> bool:
    """The same tool with the same arguments."""
    return call.name == wanted.name and same_json(call.arguments, wanted.arguments)


def leftovers(calls: Sequence[Call], expected: Sequence[Expected]) -> tuple[list[int], list[int]]:
    """Indices of the calls that answer nothing and of the expected ones that nothing answers, in whatever order.

    Optional ones are answered last.
    """
    open_calls = list(range(len(calls)))
    unanswered = []
    for index in sorted(range(len(expected)), key=lambda i: expected[i].optional):
        answer = next((i for i in open_calls if same_call(calls[i], expected[index])), None)
        if answer is None:
            unanswered.append(index)
        else:
            open_calls.remove(answer)
    return open_calls, sorted(unanswered)


def in_order(calls: Sequence[Call], expected: Sequence[Expected]) -> bool:
    """Whether the calls are the expected ones in their order, optional ones given or not."""
    reached = {0}  # how many calls can be answered by the expected ones so far
    for wanted in expected:
        on = {n + 1 for n in reached if n < len(calls) and same_call(calls[n], wanted)}
        reached = on | reached if wanted.optional else on
    return len(calls) in reached


def _close(given: float, wanted: float) -> bool:
    try:
        return math.isclose(given, wanted, rel_tol=RELATIVE_TOLERANCE)
    except OverflowError:  # an integer beyond the floats
        return False

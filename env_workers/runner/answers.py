"""Turns the value that a program returns into the outcome of the call, within a number of bytes."""

import sys
from collections import Counter, OrderedDict, defaultdict
from typing import Any

from env_workers.runner.codec import MAX_DEPTH, UnsupportedError, encode

_BASES: tuple[type, ...] = (dict, list, tuple, set, frozenset, str, bytes, int, float, complex)
_EQUAL_LIKE_DICT = (Counter, OrderedDict, defaultdict)


def value_answer(value: Any, budget_bytes: int) -> dict[str, Any]:
    """Return the outcome for a value that is or compares like a built-in one. Raises UnsupportedError, TooLargeError.

    See `plain_answer` for what travels as a built-in type.
    """
    try:
        return {"status": "returned", "value": encode(value, budget_bytes)}
    except UnsupportedError:
        return {"status": "returned", "value": encode(_plain(value, 0), budget_bytes)}


def plain_answer(value: Any, budget_bytes: int) -> dict[str, Any]:
    """Return the outcome of a call that returned `value`. Raises TooLargeError.

    A value that compares like the built-in type it is derived from (a Counter, a defaultdict, a named tuple) travels as
    that type, since graders compare with `==`, and so does a number of decimal, fractions or numpy that equals a
    built-in one; of any other value only its type's name and its truth travel.
    """
    try:
        return {"status": "returned", "value": encode(_plain(value, 0), budget_bytes)}
    except UnsupportedError as error:
        return {"status": "returned_other", "type": str(error), "truth": bool(value)}


def _plain(value: Any, depth: int) -> Any:
    kind = type(value)
    if depth > MAX_DEPTH:
        raise UnsupportedError("a value that is nested too deeply")
    if kind not in _BASES and kind is not bool:
        for base in _BASES:
            if issubclass(kind, base) and (kind in _EQUAL_LIKE_DICT or _equality(kind) is _equality(base)):
                kind, value = base, base(value)
                break
        else:
            return _plain_number(value, kind)
    if kind is dict:
        return {_plain(key, depth + 1): _plain(item, depth + 1) for key, item in value.items()}
    return kind(_plain(item, depth + 1) for item in value) if kind in (list, tuple, set, frozenset) else value


def _plain_number(value: Any, kind: type) -> Any:
    """Return the built-in number that equals a Decimal, a Fraction or a numpy scalar; any other value as it is."""
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.generic):
        return value.item()
    if (kind.__module__, kind.__name__) not in (("decimal", "Decimal"), ("fractions", "Fraction")):
        return value
    try:
        return next((number for number in (int(value), float(value)) if number == value), value)
    except (ValueError, OverflowError):  # an infinite or undefined Decimal, or one beyond the floats
        return value


def _equality(kind: type) -> Any:
    return kind.__eq__

"""How the value that a program returns travels: the outcome of the call, from the value and the bytes it may take."""

from collections import Counter, OrderedDict, defaultdict
from typing import Any

from env_workers.runner.codec import MAX_DEPTH, UnsupportedError, encode

_BASES: tuple[type, ...] = (dict, list, tuple, set, frozenset, str, bytes, int, float, complex)
_EQUAL_LIKE_DICT = (Counter, OrderedDict, defaultdict)


def exact_answer(value: Any, budget_bytes: int) -> dict[str, Any]:
    """Values of the closed set of types, and nothing else. Raises UnsupportedError, TooLargeError."""
    return {"status": "returned", "value": encode(value, budget_bytes)}


def plain_answer(value: Any, budget_bytes: int) -> dict[str, Any]:
    """The outcome of a call that returned `value`. Raises TooLargeError.

    A value that compares like the built-in type it is derived from (a Counter, a defaultdict, a named tuple) travels as
    that type, since asserts compare with `==`; of any other value only its type's name and its truth travel.
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
    if kind is dict:
        return {_plain(key, depth + 1): _plain(item, depth + 1) for key, item in value.items()}
    return kind(_plain(item, depth + 1) for item in value) if kind in (list, tuple, set, frozenset) else value


def _equality(kind: type) -> Any:
    return kind.__eq__

"""Equality of outputs, as published graders see it (docs/comparison.md), or exact by a task's `comparison`."""

import re
from decimal import Decimal
from typing import Any, Literal

Comparison = Literal["value", "exact"]
COMPARISONS: tuple[Comparison, ...] = ("value", "exact")

_NUMBER = re.compile(r"[+-]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,4})?")
"""A decimal number. One with a zero in front of other digits is text: it may be a string of bits."""


def same_value(actual: Any, expected: Any, comparison: Comparison = "value") -> bool:
    """Return whether the values are equal; both are of built-in types. NaN equals NaN.

    value: as Python's `==`, and what JSON cannot hold does not count: a tuple is the list of its items, and an integer
    key of a dict is the string of its digits where a string is expected. exact: every type counts at every depth.
    """
    if comparison == "exact":
        return bool(_exact(actual) == _exact(expected))
    return bool(actual == expected) or _equal(actual, expected)


def same_text(actual: str, expected: str, comparison: Comparison = "value") -> bool:
    """Return whether the texts have the same lines; blank lines at the end do not count.

    value: blank lines at the start and blanks at both ends of a line do not count, and a line of numbers equals another
    with the same decimal values. exact: of a line, only the blanks at its end do not count.
    """
    if comparison == "exact":
        return _lines_exactly(actual) == _lines_exactly(expected)
    lines, expected_lines = _lines(actual), _lines(expected)
    return len(lines) == len(expected_lines) and all(map(_same_line, lines, expected_lines))


def _equal(actual: Any, expected: Any) -> bool:
    if isinstance(actual, list | tuple) and isinstance(expected, list | tuple):
        return len(actual) == len(expected) and all(map(_equal, actual, expected))
    if isinstance(actual, dict) and isinstance(expected, dict):
        return _equal_dicts(actual, expected)
    if isinstance(actual, float) and isinstance(expected, float) and actual != actual:
        return expected != expected
    return bool(actual == expected)


def _equal_dicts(actual: dict[Any, Any], expected: dict[Any, Any]) -> bool:
    if len(actual) != len(expected):
        return False
    by_key = {_key(key, expected): item for key, item in actual.items()}
    return len(by_key) == len(actual) and all(
        key in by_key and _equal(by_key[key], item) for key, item in expected.items()
    )


def _key(key: Any, expected: dict[Any, Any]) -> Any:
    """Return the key under which JSON holds an integer key, where `expected` has that one only."""
    if type(key) is not int or key in expected or key.bit_length() > 64:
        return key
    return str(key) if str(key) in expected else key


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.strip().split("\n")]


def _same_line(line: str, expected: str) -> bool:
    if line == expected:
        return True
    words, expected_words = line.split(), expected.split()
    return len(words) == len(expected_words) and all(map(_same_number, words, expected_words))


def _same_number(word: str, expected: str) -> bool:
    if not (_NUMBER.fullmatch(word) and _NUMBER.fullmatch(expected)):
        return False
    return word == expected or Decimal(word) == Decimal(expected)


def _lines_exactly(text: str) -> list[str]:
    return [line.rstrip() for line in text.rstrip().splitlines()]


def _exact(value: Any) -> Any:
    name = type(value).__name__
    if isinstance(value, list | tuple):
        return (name, tuple(_exact(item) for item in value))
    if isinstance(value, set | frozenset):
        return (name, frozenset(_exact(item) for item in value))
    if isinstance(value, dict):
        return (name, {_exact(key): _exact(item) for key, item in value.items()})
    if isinstance(value, float) and value != value:
        return (name, "nan")
    return (name, value)

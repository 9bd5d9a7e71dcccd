"""Equality of outputs: by value and exact built-in type (1, True and 1.0 all differ); text without line-end blanks."""

from typing import Any


def same_value(actual: Any, expected: Any) -> bool:
    """True when both are equal and of the same built-in types at every depth. NaN equals NaN."""
    return bool(_canonical(actual) == _canonical(expected))


def same_text(actual: str, expected: str) -> bool:
    """True when both have the same lines; blanks at line ends and blank lines at the end do not count."""
    return _lines(actual) == _lines(expected)


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.rstrip().splitlines()]


def _canonical(value: Any) -> Any:
    name = type(value).__name__
    if isinstance(value, list | tuple):
        return (name, tuple(_canonical(item) for item in value))
    if isinstance(value, set | frozenset):
        return (name, frozenset(_canonical(item) for item in value))
    if isinstance(value, dict):
        return (name, {_canonical(key): _canonical(item) for key, item in value.items()})
    if isinstance(value, float) and value != value:
        return (name, "nan")
    return (name, value)

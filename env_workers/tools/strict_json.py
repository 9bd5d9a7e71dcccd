"""Reads JSON at a position in a text, strictly: no NaN, no key twice, nothing too deep, and errors that say where."""

import json
import math
from typing import Any

from env_workers.wording import quote

MAX_DEPTH = 32
MAX_DIGITS = 4300
"""Decimal digits of an integer in a call: as many as Python reads by default."""
_AROUND_CHARS = 20


class BadJson(Exception):
    """Not JSON. The message says what and where, in words for the model."""


def decode_at(text: str, start: int = 0) -> tuple[Any, int]:
    """Return the JSON value that starts at the first non-blank from `start`, and where it ends. Raises BadJson."""
    start += len(text[start:]) - len(text[start:].lstrip())
    if start == len(text):
        raise BadJson("there is nothing where JSON is expected")
    try:
        value, end = _DECODER.raw_decode(text, start)
    except json.JSONDecodeError as error:
        around = quote(text[max(start, error.pos - _AROUND_CHARS) : error.pos + _AROUND_CHARS])
        raise BadJson(f"it is not valid JSON: {error.msg.lower()}, near {around}") from None
    except RecursionError:
        raise BadJson("it is nested too deeply") from None
    except _Refused as error:
        raise BadJson(str(error)) from None
    if _depth(value) > MAX_DEPTH:
        raise BadJson("it is nested too deeply")
    return value, end


class _Refused(ValueError):
    pass


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _Refused(f"it has the key {quote(twice)} more than once")
    return result


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise _Refused("it holds a number that is too large")
    return value


def _integer(text: str) -> int:
    if len(text.lstrip("-")) > MAX_DIGITS:
        raise _Refused("it holds a number that is too long")
    return int(text)


def _constant(name: str) -> Any:
    raise _Refused(f"{name} is not JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_pairs, parse_float=_number, parse_int=_integer, parse_constant=_constant)


def _depth(value: Any) -> int:
    depth, level = 0, [value]
    while level:
        depth += 1
        level = [
            item
            for inner in level
            if isinstance(inner, list | dict)
            for item in (inner.values() if isinstance(inner, dict) else inner)
        ]
    return depth

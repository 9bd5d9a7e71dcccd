"""Reads the calls of tools in a reply's text (`env_workers.environment.Reply.text`, which is without thinking). Pure.

`json`: {"name": …, "arguments": {…}} in <tool_call>…</tool_call>, or in a fenced block where there is no such tag; a
list of such objects is several calls; arguments may also be a string of JSON. `react`: lines `Action: NAME`, each
followed by `Action Input: {…}`.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from env_workers.tools.strict_json import BadJson, decode_at
from env_workers.wording import quote

MAX_CALLS = 32
_OPEN, _CLOSE, _FENCE = "<tool_call>", "</tool_call>", "```"
_ACTION = re.compile(r"^[ \t]*Action[ \t]*:[ \t]*([^\n]*)$", re.MULTILINE)
_INPUT = re.compile(r"\s*Action[ \t]+Input[ \t]*:")
_JSON_FENCES = ("", "json", "tool_call")


class BadCalls(Exception):
    """A call that cannot be read. The message says which and why, in words for the model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call as the model wrote it."""

    name: str
    arguments: dict[str, Any]


def json_calls(text: str) -> list[Call]:
    """Return the calls of `text` in the notation `json`, in order; empty when there is none. Raises BadCalls."""
    values = _tagged(text) if _OPEN in text else _fenced(text)
    return _bounded(call for value in values for call in value)


def react_calls(text: str) -> list[Call]:
    """Return the calls of `text` in the notation `react`, in order; empty when there is none. Raises BadCalls."""
    return _bounded(_actions(text))


def read_calls(text: str, notation: Literal["json", "react"] = "json") -> list[Call]:
    """Return the calls of tools that a reply makes, in order; empty when it makes none.

    For environments of one's own: `text` is `reply.text`. Raises BadCalls for a call that cannot be read, with a
    sentence for the model.
    """
    return NOTATIONS[notation](text)


NOTATIONS: Mapping[str, Callable[[str], list[Call]]] = {"json": json_calls, "react": react_calls}


def _bounded(calls: Iterator[Call]) -> list[Call]:
    bounded = []
    for call in calls:
        bounded.append(call)
        if len(bounded) > MAX_CALLS:
            raise BadCalls(f"There are more than {MAX_CALLS} calls.")
    return bounded


def _tagged(text: str) -> Iterator[list[Call]]:
    position, number = 0, 0
    while (start := text.find(_OPEN, position)) >= 0:
        number += 1
        value, end = _decode(text, start + len(_OPEN), f"Call {number}: after {_OPEN}")
        rest = text[end:].lstrip()
        if not rest.startswith(_CLOSE):
            raise BadCalls(f"Call {number}: {_OPEN} is not closed with {_CLOSE} after its JSON.")
        position = text.index(_CLOSE, end) + len(_CLOSE)
        yield _calls_of(value, f"Call {number}")


def _fenced(text: str) -> Iterator[list[Call]]:
    """Yield the calls of fenced blocks with JSON; JSON that does not look like a call is skipped."""
    position = 0
    while (start := text.find(_FENCE, position)) >= 0:
        line_end = text.find("\n", start)
        close = text.find(_FENCE, line_end) if line_end >= 0 else -1
        if line_end < 0:
            return
        language = text[start + len(_FENCE) : line_end].strip().lower()
        position = close + len(_FENCE) if close >= 0 else len(text)
        if language not in _JSON_FENCES or text[line_end:].lstrip()[:1] not in ("{", "["):
            continue
        try:
            value, end = decode_at(text, line_end)
        except BadJson as error:
            if language:
                raise BadCalls(f"The block {_FENCE}{language}: {error}.") from None
            continue
        close = text.find(_FENCE, end)
        position = close + len(_FENCE) if close >= 0 else len(text)
        if _looks_like_calls(value):
            yield _calls_of(value, "A call")


def _looks_like_calls(value: Any) -> bool:
    items = value if isinstance(value, list) else [value]
    return bool(items) and all(isinstance(item, dict) and {"name", "arguments"} <= set(item) for item in items)


def _calls_of(value: Any, where: str) -> list[Call]:
    return [_call(item, where) for item in (value if isinstance(value, list) else [value])]


def _call(item: Any, where: str) -> Call:
    if not isinstance(item, dict):
        raise BadCalls(f"{where}: it is not a JSON object with name and arguments.")
    name, arguments = item.get("name"), item.get("arguments")
    if not isinstance(name, str) or not name:
        raise BadCalls(f"{where}: it has no name, or one that is not a string.")
    if isinstance(arguments, str):
        arguments = _whole(arguments, f"{where} ({quote(name)}): its arguments")
    if not isinstance(arguments, dict):
        raise BadCalls(f"{where} ({quote(name)}): its arguments are not a JSON object.")
    return Call(name=name, arguments=arguments)


def _actions(text: str) -> Iterator[Call]:
    position, number = 0, 0
    while action := _ACTION.search(text, position):
        number += 1
        name = action[1].strip()
        if not name:
            raise BadCalls(f"Call {number}: Action names no tool.")
        given = _INPUT.match(text, action.end())
        if given is None:
            raise BadCalls(f"Call {number} ({quote(name)}): Action is not followed by a line Action Input.")
        value, position = _decode(text, given.end(), f"Call {number} ({quote(name)}): Action Input")
        if not isinstance(value, dict):
            raise BadCalls(f"Call {number} ({quote(name)}): Action Input is not a JSON object.")
        yield Call(name=name, arguments=value)


def _whole(text: str, where: str) -> Any:
    value, end = _decode(text, 0, where)
    if text[end:].strip():
        raise BadCalls(f"{where}: there is more after the JSON.")
    return value


def _decode(text: str, start: int, where: str) -> tuple[Any, int]:
    try:
        return decode_at(text, start)
    except BadJson as error:
        raise BadCalls(f"{where}: {error}.") from None

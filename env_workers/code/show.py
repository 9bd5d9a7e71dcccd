"""Values and texts as feedback shows them: within budgets, head and tail kept, and the same in every run."""

import re
from collections.abc import Callable
from typing import Any

MAX_LINE_CHARS = 250
MAX_LINES = 8
TAIL_LINES = 2
MAX_SHOW_DEPTH = 64

_ADDRESS = re.compile(r"\b0x[0-9a-fA-F]{6,}\b")
_PATH = re.compile(r"(?<![\w./])/(?:[\w.+-]+/)+[\w.+-]*")
_DURATION = re.compile(r"\b\d+(?:\.\d+)? ?(?:ns|us|µs|ms|s|sec|secs|seconds|minutes)\b")
_UUID = re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b")
_CLOCK = re.compile(
    r"\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?\b|\b\d+:\d\d:\d\d\.\d{3,6}\b|\b1[6-9]\d{8}\.\d{2,}\b"
)
_IDENTITY = re.compile(r"\b(?:1(?:3[89]|40)\d{12}|9[345]\d{12})\b")  # where Linux puts a process's memory

_CHANGING: tuple[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]], ...] = (
    (_ADDRESS, "0x..."),
    (_PATH, "<path>"),
    (_UUID, "<uuid>"),
    (_CLOCK, "<time>"),
    (_DURATION, "<time>"),
    (_IDENTITY, lambda match: match[0] if int(match[0]) % 16 else "<id>"),  # objects begin at multiples of 16
)


def scrub(text: str, *known: str) -> str:
    """Return `text` without what differs from run to run: addresses, paths, random ids, clocks, durations.

    What is of a kind that occurs in `known` too (a test's input and expected output) is an answer, and stays.
    """
    for pattern, instead in _CHANGING:
        if not any(pattern.search(other) for other in known):
            text = pattern.sub(instead, text)
    return text


def clip(text: str, limit: int = MAX_LINE_CHARS) -> str:
    """Return `text` cut to at most `limit` characters: two thirds from its head, the rest from its tail."""
    if len(text) <= limit:
        return text
    head = limit * 2 // 3
    return f"{text[:head]}... ({len(text) - limit} more characters) ...{text[head - limit :]}"


def clip_lines(text: str, max_chars: int) -> str:
    """Return `text` within the budgets of a line, of lines and of `max_chars` in all.

    The first line and the tail are kept.
    """
    lines = [clip(line) for line in text.rstrip("\n").split("\n")]
    if len(lines) <= MAX_LINES and sum(map(len, lines)) <= max_chars:
        return "\n".join(lines)
    tail = 0
    while tail < min(TAIL_LINES, len(lines) - 1) and sum(map(len, lines[len(lines) - tail - 1 :])) <= max_chars // 2:
        tail += 1
    left_chars = max_chars - sum(map(len, lines[len(lines) - tail :]))
    head = 1
    while head < min(len(lines), MAX_LINES) - tail and sum(map(len, lines[: head + 1])) <= left_chars:
        head += 1
    cut = len(lines) - head - tail
    return "\n".join([*lines[:head], *([f"... ({cut} more lines)"] if cut else []), *lines[len(lines) - tail :]])


def printable(text: str) -> str:
    """Return `text` with what UTF-8 cannot hold escaped."""
    return text.encode("utf-8", "backslashreplace").decode()


def show(value: Any, depth: int = 0) -> str:
    """Return the value as `repr` does, but sets are sorted and neither long integers nor deep nesting can fail."""
    if depth > MAX_SHOW_DEPTH:
        return "..."
    if isinstance(value, int) and value.bit_length() > 4000:
        return f"an integer of {value.bit_length()} bits"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{show(k, depth + 1)}: {show(v, depth + 1)}" for k, v in value.items()) + "}"
    if isinstance(value, set | frozenset):
        body = "{" + ", ".join(sorted(show(item, depth + 1) for item in value)) + "}" if value else ""
        return body if body and isinstance(value, set) else f"{type(value).__name__}({body})"
    if isinstance(value, list | tuple):
        items = [show(item, depth + 1) for item in value]
        if isinstance(value, list):
            return f"[{', '.join(items)}]"
        return f"({items[0]},)" if len(items) == 1 else f"({', '.join(items)})"
    return repr(value)

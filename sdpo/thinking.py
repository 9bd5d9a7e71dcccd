"""Tells the thinking in a response, `<think>…</think>`, from the answer."""

import re
from dataclasses import dataclass

OPEN, CLOSE = "<think>", "</think>"
_MARK = re.compile(
    r"```.*?```|~~~.*?~~~|<tool_call>(?:(?!<tool_call>).)*?</tool_call>|`[^`\n]+`|<think>|</think>", re.DOTALL
)
"""A tag, or a stretch of text in which a tag is quoted: a fenced block, a tool call, code within a line."""
_CLOSE_LINE = re.compile(r"^[ \t]*</think>", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The two parts of a response; joined in the order of the text they are the whole of it."""

    thinking: str
    answer: str


def split_thinking(text: str, *, in_thinking: bool = False) -> Parts:
    """Return the thinking and the answer of a response. `in_thinking`: its prompt ended inside a thinking block.

    Thinking is: what stands up to the first `</think>`, where the prompt or the first word opened a block; what a
    later `<think>` opens, up to its end or to the end of the text; and all that stands before a `</think>` that
    nothing opened. Tags that a fenced block, a tool call or code within a line quotes are text.
    """
    kept: list[tuple[int, int]] = []
    position, is_known = 0, in_thinking or text.lstrip().startswith(OPEN)
    if is_known:
        position = _after_close(text, 0)
    opened: int | None = None  # how many spans were kept before a <think> in the middle of a line
    while position < len(text) and (match := _MARK.search(text, position)) is not None:
        mark, end = match[0], match.end()
        kept.append((position, match.start() if mark in (OPEN, CLOSE) else end))
        position = end
        if mark == CLOSE:
            del kept[opened or 0 :]
            opened = None
        elif mark != OPEN:
            close = None if is_known else _CLOSE_LINE.search(mark)
            if close is not None:
                kept, position = [], match.start() + close.end()
        elif _starts_line(text, match.start()):
            position = _after_close(text, end)
        elif opened is None:
            opened = len(kept)
            kept.append((match.start(), end))
    kept.append((position, len(text)))
    return Parts(thinking=_complement(text, kept), answer="".join(text[start:end] for start, end in kept))


def ends_in_thinking(text: str) -> bool:
    """Whether a prompt's last words open a thinking block and do not close it."""
    return text.rfind(OPEN) > text.rfind(CLOSE)


def _after_close(text: str, start: int) -> int:
    close = text.find(CLOSE, start)
    return len(text) if close < 0 else close + len(CLOSE)


def _starts_line(text: str, position: int) -> bool:
    return not text[text.rfind("\n", 0, position) + 1 : position].strip()


def _complement(text: str, spans: list[tuple[int, int]]) -> str:
    ends = [0, *(end for _, end in spans)]
    return "".join(text[end:start] for end, (start, _) in zip(ends, spans, strict=False))

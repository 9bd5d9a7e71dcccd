"""Finds the program in a response: the last closed block of Python (docs/comparison.md says why)."""

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field

_FENCE = re.compile(r"`{3,}|~{3,}")
_BEFORE_TILDES = re.compile(r"\s*(?:[-*+>]|[0-9]{1,9}[.)])?\s*")
_PYTHON = ("python", "python3", "py", "py3")
_MOST_INDENT_OF_A_CLOSING_FENCE = 3


@dataclass(slots=True)
class _Block:
    fence: str
    indent: int
    language: str
    lines: list[str] = field(default_factory=list)

    @property
    def program(self) -> str:
        """The block's lines without the indentation of its fence, each with a line feed."""
        lines = [_without_indent(line, self.indent) for line in self.lines]
        first = next((line for line in lines if line.strip()), "")
        text = "".join(f"{line}\n" for line in lines)
        return textwrap.dedent(text) if first[:1].isspace() else text


def extract_program(text: str) -> str | None:
    """Return the last closed fenced block of `text` that is marked as Python; without one, the last unmarked; else any.

    Blank blocks do not count. None when there is no block. A block is fenced by three or more backticks or tildes, may
    be indented, and ends with a line of at least as many of the same, indented by at most three blanks more.
    """
    blocks = [block for block in _closed_blocks(text) if any(line.strip() for line in block.lines)]
    for wanted in (_PYTHON, ("",)):
        chosen = [block for block in blocks if block.language in wanted]
        if chosen:
            return chosen[-1].program
    return blocks[-1].program if blocks else None


def _closed_blocks(text: str) -> Iterator[_Block]:
    block: _Block | None = None
    for line in text.split("\n"):
        opened = _opening(line)
        if block is None:
            block = opened
        elif _closes(line, block):
            yield block
            block = None
        elif opened is not None and opened.language in _PYTHON and opened.indent <= block.indent:
            block = opened  # the block before was never closed
        elif (rest := _end_of_block(line, block)) is not None:
            block.lines.append(rest)
            yield block
            block = None
        else:
            block.lines.append(line)


def _opening(line: str) -> _Block | None:
    """Return the block that the line opens. Words may stand before its fence, but no other backticks."""
    found = _FENCE.search(line)
    if found is None:
        return None
    before, fence, mark = line[: found.start()], found.group(), line[found.end() :].strip()
    if "`" in before or "`" in mark:
        return None
    if fence[0] == "~" and not _BEFORE_TILDES.fullmatch(before):
        return None
    words = mark.lower().strip("{}").lstrip(".").split()
    return _Block(fence, _width(line) if not before.strip() else 0, words[0] if words else "")


def _closes(line: str, block: _Block) -> bool:
    bare = line.strip()
    if set(bare) != {block.fence[0]} or len(bare) < len(block.fence):
        return False
    return _width(line) <= block.indent + _MOST_INDENT_OF_A_CLOSING_FENCE


def _end_of_block(line: str, block: _Block) -> str | None:
    """Return what stands before a closing fence at the end of a line of code; None where there is no such fence."""
    bare = line.rstrip()
    rest = bare.rstrip("`")
    if block.fence[0] != "`" or len(bare) - len(rest) < len(block.fence) or not rest.strip() or "`" in rest:
        return None
    return rest


def _width(line: str) -> int:
    return len(line) - len(line.lstrip())


def _without_indent(line: str, indent: int) -> str:
    return line[min(indent, _width(line)) :]

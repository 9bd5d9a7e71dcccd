"""Texts of a model, taken apart and made fit to be shown again."""

import re

_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")
_CUT = " ... "


def spoken(text: str) -> str:
    """What the model said after its thinking: all of it without <think>, nothing while <think> is still open."""
    _, closed, said = text.rpartition("</think>")
    if closed:
        return said
    return "" if text.lstrip().startswith("<think>") else text


def last_tagged(text: str, tag: str) -> str | None:
    """What stands in the last <tag>…</tag>, stripped; up to the end where it is not closed. None without <tag>."""
    _, found, rest = text.rpartition(f"<{tag}>")
    return rest.partition(f"</{tag}>")[0].strip() if found else None


def shorten(text: str, max_chars: int) -> str:
    """At most `max_chars` (at least 10) characters of `text`: its head and its tail, with ` ... ` for what is cut."""
    if len(text) <= max_chars:
        return text
    kept = max_chars - len(_CUT)
    return f"{text[: kept - kept // 2]}{_CUT}{text[len(text) - kept // 2 :]}"


def quote(text: str, max_chars: int = 80) -> str:
    """A short piece of the model's own text on one line, within single quotes."""
    return f"'{shorten(printable(' '.join(text.split())), max_chars)}'"


def printable(text: str) -> str:
    """`text` with ? for control characters (tabs and line feeds stay) and for lone surrogates."""
    return _UNPRINTABLE.sub("?", text)


def words(names: list[str], last: str = "and") -> str:
    """`a, b and c`."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} {last} {names[-1]}"

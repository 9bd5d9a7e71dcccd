"""Takes texts of a model apart and makes them fit to be shown again."""

import re

_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")
_CUT = " ... "


def last_tagged(text: str, tag: str) -> str | None:
    """Return what stands in the last <tag>…</tag>, stripped.

    Up to the end where it is not closed. None without <tag>.
    """
    _, opened, rest = text.rpartition(f"<{tag}>")
    return rest.partition(f"</{tag}>")[0].strip() if opened else None


def shorten(text: str, max_chars: int) -> str:
    """Return at most `max_chars` (at least 10) characters of `text`: its head and its tail, with ` ...

    ` for what is cut.
    """
    if len(text) <= max_chars:
        return text
    num_chars = max_chars - len(_CUT)
    return f"{text[: num_chars - num_chars // 2]}{_CUT}{text[len(text) - num_chars // 2 :]}"


def quote(text: str, max_chars: int = 80) -> str:
    """Return a short piece of the model's own text on one line, within single quotes."""
    return f"'{shorten(printable(' '.join(text.split())), max_chars)}'"


def printable(text: str) -> str:
    """Return `text` with ? for control characters (tabs and line feeds stay) and for lone surrogates."""
    return _UNPRINTABLE.sub("?", text)


def words(names: list[str], last: str = "and") -> str:
    """Return names as `a, b and c`."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} {last} {names[-1]}"

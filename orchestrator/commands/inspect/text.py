"""Make text of models and people safe to print on a terminal."""

import re

_SHAPELESS = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]"
)
_WHITESPACE = str.maketrans({" ": "·", "\n": "↵", "\t": "→", "\r": "␍"})


def harmless(text: str) -> str:
    """Return `text` with control and invisible characters spelled out, except line ends and tabs."""
    return _SHAPELESS.sub(lambda found: f"‹U+{ord(found[0]):04X}›", text)


def visible(text: str) -> str:
    """Return `text` on one line, with signs for spaces, tabs and line ends."""
    return harmless(text.translate(_WHITESPACE))


def one_line(text: str) -> str:
    """Return `text` on one line, with a sign for every line end and its indentation."""
    return harmless(re.sub(r"\n\s*", "↵ ", text))

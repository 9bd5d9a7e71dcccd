"""What a model or a person wrote, as text for a terminal."""

import re

_SHAPELESS = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]"
)
_WHITESPACE = str.maketrans({" ": "·", "\n": "↵", "\t": "→", "\r": "␍"})


def harmless(text: str) -> str:
    """`text` with line ends and tabs, and every other character that steers a terminal or has no shape spelled out."""
    return _SHAPELESS.sub(lambda found: f"‹U+{ord(found[0]):04X}›", text)


def visible(text: str) -> str:
    """`text` on one line: spaces, tabs and line ends as signs."""
    return harmless(text.translate(_WHITESPACE))


def one_line(text: str) -> str:
    """`text` with a sign for every line end and its indentation."""
    return harmless(re.sub(r"\n\s*", "↵ ", text))

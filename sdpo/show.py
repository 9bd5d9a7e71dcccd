"""Values and errors in one-line messages."""

import json
from typing import Any

LONGEST_VALUE_CHARS = 80
LONGEST_ERROR_CHARS = 300


def show(value: Any) -> str:
    """A value on one line, as a person would write it in YAML or JSON, shortened to `LONGEST_VALUE_CHARS`."""
    text = value if isinstance(value, str) and value.isprintable() and value else json.dumps(value, default=str)
    text = "none" if text == "null" else text
    return text if len(text) <= LONGEST_VALUE_CHARS else text[: LONGEST_VALUE_CHARS - 3] + "..."


def show_error(error: BaseException, max_chars: int = LONGEST_ERROR_CHARS) -> str:
    """The error's text on one line, cut off after `max_chars`."""
    return " ".join(str(error).split())[:max_chars]

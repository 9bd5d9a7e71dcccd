"""Values in one-line error messages."""

import json
from typing import Any

LONGEST_VALUE_CHARS = 80


def show(value: Any) -> str:
    """A value on one line, as a person would write it in YAML or JSON, shortened to `LONGEST_VALUE_CHARS`."""
    text = value if isinstance(value, str) and value.isprintable() and value else json.dumps(value, default=str)
    text = "none" if text == "null" else text
    return text if len(text) <= LONGEST_VALUE_CHARS else text[: LONGEST_VALUE_CHARS - 3] + "..."

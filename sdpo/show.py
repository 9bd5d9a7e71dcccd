"""Values, sizes, durations and errors as text for one-line messages."""

import json
from collections.abc import Sequence
from typing import Any

MIB, GIB = 2**20, 2**30
LONGEST_VALUE_CHARS = 80
LONGEST_ERROR_CHARS = 300


def show(value: Any) -> str:
    """Return a value on one line, as a person would write it in YAML or JSON, shortened to `LONGEST_VALUE_CHARS`."""
    try:
        text = value if isinstance(value, str) and value.isprintable() and value else json.dumps(value, default=str)
    except (TypeError, ValueError, RecursionError):  # keys of other types, a cycle, an integer of too many digits
        text = f"a value of type {type(value).__name__}"
    text = "none" if text == "null" else text
    return text if len(text) <= LONGEST_VALUE_CHARS else text[: LONGEST_VALUE_CHARS - 3] + "..."


def show_names(names: Sequence[Any], most: int) -> str:
    """Return the first `most` names and the number of the others: "a, b and 3 more"."""
    listed = ", ".join(str(name) for name in names[:most])
    return f"{listed} and {len(names) - most} more" if len(names) > most else listed


def show_bytes(num_bytes: float) -> str:
    """Return a size in MiB or GiB: "64 MiB", "1.5 GiB", "112 GiB"."""
    if num_bytes < GIB:
        return f"{num_bytes / MIB:.0f} MiB"
    gib = num_bytes / GIB
    return f"{round(gib, 1 if gib < 100 else None):g} GiB"


def show_duration(seconds: float) -> str:
    """Return a duration in at most two units: 45 s, 12 min, 2 h 05 min, 3 d 4 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 24 * 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes // 1440} d {minutes % 1440 // 60} h"


def show_error(error: BaseException, max_chars: int = LONGEST_ERROR_CHARS) -> str:
    """Return the error's text on one line, cut off after `max_chars`."""
    return " ".join(str(error).split())[:max_chars]

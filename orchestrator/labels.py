"""Ray's label selectors: `value`, `!value`, `in(a,b)` and `!in(a,b)`, all of which have to hold."""

import re
from collections.abc import Mapping

_MANY = re.compile(r"^(!?)in\((.*)\)$")


def matches(labels: Mapping[str, str], selector: Mapping[str, str]) -> bool:
    """Whether a node with `labels` is chosen. A label that the node lacks is unlike every value."""
    return all(_holds(labels.get(name), wanted.strip()) for name, wanted in selector.items())


def _holds(value: str | None, wanted: str) -> bool:
    if (many := _MANY.match(wanted)) is not None:
        return (value in {word.strip() for word in many[2].split(",")}) is not bool(many[1])
    if wanted.startswith("!"):
        return value != wanted[1:]
    return value == wanted

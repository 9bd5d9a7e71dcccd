"""Paths as users write them: `~` is a home folder everywhere, and no path holds what a line of text cannot."""

import os
from pathlib import Path


def expanded(location: str) -> str:
    """Return a path or a URI with `~` or `~name` at its beginning replaced by that home folder.

    Raises `ValueError` with the reason for an unknown user, a control character (a newline), and bytes that are no
    UTF-8.
    """
    if any(ord(character) < 32 or ord(character) == 127 for character in location):
        raise ValueError("a path with a control character (a newline, a tab) cannot be used")
    try:
        location.encode()
    except UnicodeEncodeError:
        raise ValueError("a path that is not UTF-8 text cannot be used") from None
    if not location.startswith("~"):
        return location
    path = os.path.expanduser(location)
    if path.startswith("~"):
        user = location.partition("/")[0]
        raise ValueError(f"no home folder of {user} is known (a folder of that name: ./{user})")
    return path


def expanded_path(location: str) -> Path:
    """Return `expanded` as a path. Raises as it."""
    return Path(expanded(location))

"""Texts that are longer than a budget: head and tail are kept, and a mark where something is left out."""

from collections.abc import Callable

CUT_MARK = "\n[...]\n"


def cut(text: str, kept_chars: int) -> str:
    """Return `text`, or its head and its tail, together `kept_chars` characters, around `CUT_MARK`."""
    if len(text) <= kept_chars:
        return text
    head, tail = (kept_chars + 1) // 2, kept_chars // 2
    return text[:head] + CUT_MARK + (text[-tail:] if tail else "")


def largest_fitting(fits: Callable[[int], bool], longest: int) -> int:
    """Return the most characters to keep, by bisection (lengths are nearly monotone); 0 if not even 0 fit."""
    low, high = 0, longest
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low

"""Colours that people with any kind of colour vision tell apart, on white and on black."""

from collections.abc import Iterable

RUN_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe and Ito without black and yellow."""
RUN_DASHES = ((1, 0), (7, 3), (2, 3))
"""Solid first; another one each time that the colours are used up."""

PART_COLOURS = (
    "#88CCEE", "#CC6677", "#DDCC77", "#117733", "#AA4499", "#44AA99", "#999933", "#882255", "#6666CC",
)  # fmt: skip
"""Paul Tol's muted scheme, its darkest colour lightened for a black page."""
OTHER_COLOUR = "#9A9A9A"

_KIND_COLOURS = {
    "passed": "#0072B2",
    "wrong_answer": "#E69F00",
    "runtime_error": "#D55E00",
    "syntax_error": "#CC79A7",
    "timeout": "#56B4E9",
    "truncated": "#9A9A9A",
}


def run_style(place: int) -> tuple[str, tuple[int, int]]:
    """Colour and dash of the group of runs at `place`, counted from 0."""
    turn, colour = divmod(place, len(RUN_COLOURS))
    return RUN_COLOURS[colour], RUN_DASHES[turn % len(RUN_DASHES)]


def kind_colours(kinds: Iterable[str]) -> dict[str, str]:
    """A colour for every kind of verdict; `passed` comes first, the rest by name."""
    names = sorted(set(kinds), key=lambda kind: (kind != "passed", kind))
    free = iter(PART_COLOURS * (1 + len(names) // len(PART_COLOURS)))
    return {name: _KIND_COLOURS[name] if name in _KIND_COLOURS else next(free) for name in names}

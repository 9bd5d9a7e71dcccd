"""Colours that people with any kind of colour vision can tell apart, on white and on black."""

import math
from collections.abc import Iterable

RUN_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""The palette of Okabe and Ito without black and yellow."""
RUN_DASHES = ((1, 0), (7, 3), (2, 3))
"""Solid first; the next one each time that the colours are used up."""

PART_COLOURS = (
    "#88CCEE", "#CC6677", "#DDCC77", "#117733", "#AA4499", "#44AA99", "#999933", "#882255", "#6666CC",
)  # fmt: skip
"""Paul Tol's muted scheme, its darkest colour lightened for a black page."""
OTHER_COLOUR = "#9A9A9A"

PASSED_KIND = "passed"
"""The kind that the built-in environments give a success."""
_KIND_COLOURS = {
    PASSED_KIND: "#0072B2",
    "wrong_answer": "#E69F00",
    "runtime_error": "#D55E00",
    "syntax_error": "#CC79A7",
    "timeout": "#56B4E9",
    "truncated": "#9A9A9A",
}


def run_style(index: int) -> tuple[str, tuple[int, int]]:
    """Return colour and dash of the group of runs with this index, from 0."""
    turn, colour = divmod(index, len(RUN_COLOURS))
    return RUN_COLOURS[colour], RUN_DASHES[turn % len(RUN_DASHES)]


def kind_colours(kinds: Iterable[str]) -> dict[str, str]:
    """Return a colour for every kind of verdict; `passed` comes first, the rest by name.

    Kinds of one's own have the colours that are most unlike those which are shown already. After
    `len(PART_COLOURS)` of them colours are used again.
    """
    names = sorted(set(kinds), key=lambda kind: (kind != PASSED_KIND, kind))
    colours = {name: _KIND_COLOURS[name] for name in names if name in _KIND_COLOURS}
    own, free = [name for name in names if name not in colours], list(PART_COLOURS)
    for name in own:
        free = free or list(PART_COLOURS)
        colours[name] = max(free, key=lambda colour: min((distance(colour, c) for c in colours.values()), default=0.0))
        free.remove(colours[name])
    return {name: colours[name] for name in names}


def distance(one: str, other: str) -> float:
    """Return how unlike two colours look, 0 to about 765: the weighted distance in sRGB ("redmean")."""
    (r1, g1, b1), (r2, g2, b2) = ([int(colour[i : i + 2], 16) for i in (1, 3, 5)] for colour in (one, other))
    red = (r1 + r2) / 512
    return math.sqrt((2 + red) * (r1 - r2) ** 2 + 4 * (g1 - g2) ** 2 + (3 - red) * (b1 - b2) ** 2)

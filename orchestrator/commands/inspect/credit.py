"""Show the tokens of one attempt on a terminal: coloured by credit, or as rows of numbers."""

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.style import Style
from rich.table import Table
from rich.text import Text

from orchestrator.commands.inspect.text import harmless, visible
from orchestrator.run_dir.sample_form import MOST_CREDIT_NATS

Sample = dict[str, Any]

_LEAST_LEVEL = 0.05
_WEAK, _RED, _BLUE = (70, 70, 75), (205, 30, 40), (20, 95, 215)
_WHITE = "rgb(255,255,255)"
_ENVIRONMENT = Style(dim=True, italic=True)
_MOST_STRONGEST = 5
_LEAST_STRONG_NATS = 0.01


def credits(sample: Sample) -> list[float | None]:
    """Return the credit of every token in nats; None for tokens of the environment and for attempts without scores."""
    teacher = sample["teacher"]
    values: list[float | None] = [None] * len(sample["tokens"]) if teacher is None else teacher["credit"]
    return values


def mean_credit(sample: Sample) -> float | None:
    """Return the mean credit of the model's tokens in nats; None without a teacher."""
    known = [c for c in credits(sample) if c is not None]
    return sum(known) / len(known) if known else None


def coloured(sample: Sample) -> Text:
    """Return the response with blamed tokens in red and underlined, and credited tokens in blue."""
    text = Text()
    for piece, author, credit in zip(sample["tokens"], sample["authors"], credits(sample), strict=True):
        text.append(harmless(piece), _ENVIRONMENT if author == "environment" else _style(credit))
    return text


def strongest(sample: Sample) -> list[int]:
    """Return the positions of the tokens with the lowest and the highest credit, in the order of the response."""
    known = [(credit, i) for i, credit in enumerate(credits(sample)) if credit is not None]
    low = [i for credit, i in sorted(known)[:_MOST_STRONGEST] if credit <= -_LEAST_STRONG_NATS]
    high = [i for credit, i in sorted(known, reverse=True)[:_MOST_STRONGEST] if credit >= _LEAST_STRONG_NATS]
    return sorted({*low, *high})


def token_table(sample: Sample, positions: Sequence[int]) -> Table:
    """Return a table with a row for each token: position from 1, text, log p, log q, credit, the teacher's entropy."""
    teacher = sample["teacher"]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("token", justify="right")
    table.add_column("text", no_wrap=True, max_width=40)
    for name in ("log p", "log q", "credit", "teacher's entropy"):
        table.add_column(name, justify="right", no_wrap=True)
    for i in positions:
        credit = credits(sample)[i]
        log_p = sample["log_p"][i] if teacher is None else teacher["log_p"][i]
        scores = [None] * 2 if teacher is None else [teacher["log_q"][i], teacher["entropy"][i]]
        piece = Text().append(visible(sample["tokens"][i]) or "(continued)", _style(credit))
        if sample["authors"][i] == "environment":
            piece.stylize(_ENVIRONMENT)
        numbers = [_number(log_p), _number(scores[0]), _number(credit, "+.3f"), _number(scores[1])]
        table.add_row(str(i + 1), piece, *numbers)
    return table


def _style(credit: float | None) -> Style:
    level = 0.0 if credit is None else min(1.0, abs(credit) / MOST_CREDIT_NATS)
    if credit is None or level < _LEAST_LEVEL:
        return Style.null()
    strong = _RED if credit < 0 else _BLUE
    red, green, blue = (round(weak + level * (full - weak)) for weak, full in zip(_WEAK, strong, strict=True))
    return Style(color=_WHITE, bgcolor=f"rgb({red},{green},{blue})", underline=credit < 0)


def _number(value: float | None, form: str = ".3f") -> str:
    return "" if value is None else format(round(value, 3) + 0.0, form)  # no minus before 0

"""The date that a chat template writes into prompts, held fixed: a run has one, however long it takes or often resumes.

transformers gives templates `strftime_now`, which reads the clock; here it is replaced for one tokenizer.
"""

from datetime import date, datetime
from functools import partial
from typing import Any

PROMPT_DATE = "prompt.date"
"""The key of the date in the `inputs.json` of a run directory."""
DETERMINISTIC = date(2025, 1, 1)
"""The date of every deterministic run: two of them must have the same prompts on any day."""


def shows_date(tokenizer: Any) -> bool:
    """Whether the tokenizer's chat template asks for the date or the time."""
    return "strftime_now" in str(tokenizer.chat_template)


def fix_date(tokenizer: Any, day: date) -> None:
    """Let the tokenizer's chat template see midnight of `day` whenever it asks for the date or the time."""
    tokenizer.apply_chat_template = partial(tokenizer.apply_chat_template, strftime_now=_Midnight(day))


class _Midnight:
    """The `strftime_now` of a template."""

    def __init__(self, day: date) -> None:
        self._now = datetime(day.year, day.month, day.day)

    def __call__(self, form: str) -> str:
        return self._now.strftime(form)

"""SciKnowEval, multiple choice, in the form in which the SDPO paper's authors filter it.

A record: `prompt` (the question and its options, one a line: `A: ...`), `system`, `answer` (a letter), `idx`.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from env_workers.adapters import Purpose
from env_workers.adapters.fields import Options, bad_field, numbered, text_field
from env_workers.adapters.records import read_records
from sdpo.types import Message, Task

_OPTION = re.compile(r"^([A-Z]): ", re.MULTILINE)


def sciknoweval(path: str, purpose: Purpose, options: Mapping[str, Any]) -> Iterator[Task]:
    """Yield one task a record with its system and user message as they are.

    The letters that exist are read from the options' lines.
    """
    Options("sciknoweval", options)
    for number, (where, record) in enumerate(read_records(path, options), start=1):
        prompt, system = text_field(where, record, "prompt"), text_field(where, record, "system")
        answer, choices = text_field(where, record, "answer"), _choices(prompt)
        if len(choices) < 2:
            raise bad_field(where, "prompt", prompt, "a question with options on lines of their own: A: ..., B: ...")
        if answer not in choices:
            raise bad_field(where, "answer", answer, ", ".join(choices))
        yield Task(
            id=numbered("sciknoweval", purpose, number),
            messages=(Message(role="system", content=system), Message(role="user", content=prompt)),
            environment="multiple_choice",
            payload={"answer": answer, "choices": choices},
        )


def _choices(prompt: str) -> list[str]:
    """Return the last run of letters that starts with A: a question may hold lines of the same form."""
    letters: list[str] = []
    for letter in _OPTION.findall(prompt):
        follows = letters and ord(letter) == ord(letters[-1]) + 1
        letters = ["A"] if letter == "A" else [*letters, letter] if follows else letters
    return letters

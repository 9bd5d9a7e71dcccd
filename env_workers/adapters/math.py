"""Mathematics: questions with a final answer, in the forms of MATH, GSM8K and DAPO.

A record: the question under the option `question` (default: the first of problem, question, prompt that is there) and
the answer under `answer`, or a solution that ends with it in \\boxed{} or after ####.
"""

import logging
from collections.abc import Iterator, Mapping
from typing import Any

from env_workers.adapters import Purpose
from env_workers.adapters.fields import Options, bad_field, field, numbered, text_field
from env_workers.adapters.records import read_records
from env_workers.mathematics import READABLE, is_readable, last_box
from sdpo.types import Message, Task

INSTRUCTION = "Please reason step by step, and put your final answer within \\boxed{}."
log = logging.getLogger(__name__)
_QUESTIONS = ("problem", "question", "prompt")
_ANSWERS = ("answer", "solution")


def math(path: str, purpose: Purpose, options: Mapping[str, Any]) -> Iterator[Task]:
    """Yield one task a record: one user message with the question and, after it, `instruction` (an option).

    `unreadable`: what becomes of a record whose answer the judge cannot read: refuse (default), drop (the count is
    logged).
    """
    chosen = Options("math", options, ("question", "answer", "instruction", "unreadable"))
    drop = chosen.choice("unreadable", ("refuse", "drop"), "refuse") == "drop"
    num_dropped = 0
    instruction = chosen.text("instruction", INSTRUCTION)
    for number, (where, record) in enumerate(read_records(path, options), start=1):
        question = text_field(where, record, _name(record, chosen, "question", _QUESTIONS))
        name = _name(record, chosen, "answer", _ANSWERS)
        value = field(where, record, name)
        if type(value) in (int, float):
            value = str(value)
        answer = _final(value) if isinstance(value, str) else ""
        if not answer:
            raise bad_field(where, name, value, "an answer, or a text with one in \\boxed{} or after ####")
        if not is_readable(answer):
            if not drop:
                raise bad_field(where, name, answer, f"{READABLE}; or tasks.options.unreadable=drop")
            num_dropped += 1
            continue
        yield Task(
            id=numbered("math", purpose, number),
            messages=(Message(role="user", content=f"{question}\n{instruction}"),),
            environment="math",
            payload={"answer": answer},
        )
    if num_dropped:
        log.warning("%s: dropped %d records whose answer the judge cannot read", path, num_dropped)


def _name(record: Mapping[str, Any], chosen: Options, option: str, known: tuple[str, ...]) -> str:
    if chosen.has(option):
        return chosen.text(option)
    return next((name for name in known if record.get(name) is not None), known[0])


def _final(text: str) -> str:
    boxed = last_box(text)
    return boxed if boxed is not None else text.rpartition("####")[2].strip()

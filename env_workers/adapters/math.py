"""Mathematics: questions with a final answer, in the forms in which MATH, GSM8K and DAPO are found.

A record: the question under the option `question` (default: the first of problem, question, prompt that is there) and
the answer under `answer`, or a solution that ends with it in \\boxed{} or after ####.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from env_workers.adapters import Purpose
from env_workers.adapters.fields import Options, bad_field, field, text_field
from env_workers.adapters.records import read_records
from env_workers.mathematics import last_box
from sdpo.types import Message, Task

INSTRUCTION = "Please reason step by step, and put your final answer within \\boxed{}."
_QUESTIONS = ("problem", "question", "prompt")
_ANSWERS = ("answer", "solution")


def math(path: str, purpose: Purpose, options: Mapping[str, Any]) -> Iterator[Task]:
    """One user message: the question, and `instruction` (an option) after it."""
    chosen = Options("math", options, ("question", "answer", "instruction"))
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
        yield Task(
            id=f"math-{number}",
            messages=(Message(role="user", content=f"{question}\n{instruction}"),),
            environment="math",
            payload={"answer": answer},
        )


def _name(record: Mapping[str, Any], chosen: Options, option: str, known: tuple[str, ...]) -> str:
    if chosen.has(option):
        return chosen.text(option)
    return next((name for name in known if name in record), known[0])


def _final(text: str) -> str:
    boxed = last_box(text)
    return boxed if boxed is not None else text.rpartition("####")[2].strip()

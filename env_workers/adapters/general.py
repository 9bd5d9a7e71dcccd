"""The adapter for records of any form: a prompt template, an environment, and which fields go where."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from env_workers.adapters import Purpose
from env_workers.adapters.fields import Options, bad_field, field
from env_workers.adapters.records import read_records
from sdpo.types import Message, Task

_NAME = r"[A-Za-z_][A-Za-z0-9_]*"
_FIELD = re.compile(rf"\{{\{{({_NAME})\}}\}}|\{{({_NAME})\}}")


def records(path: str, purpose: Purpose, options: Mapping[str, Any]) -> Iterator[Task]:
    """Yield one task a record.

    Options: `environment` and `prompt` must be given. `prompt` and `system` are templates in which {field} stands for
    that field of the record ({{name}} is the text "{name}"; braces around anything else are text). `id`: the field with
    the task's id; without it tasks are numbered. `payload`: the fields that the environment gets, as a list of names or
    as {name in the payload: field}; without it, the whole record. `constants`: what every payload holds besides.
    """
    own = ("environment", "prompt", "system", "id", "payload", "constants")
    chosen = Options("records", options, own)
    environment, prompt = chosen.text("environment"), chosen.text("prompt")
    system = chosen.text("system") if chosen.has("system") else None
    for number, (where, record) in enumerate(read_records(path, options), start=1):
        messages = [] if system is None else [Message(role="system", content=fill(where, system, record))]
        messages.append(Message(role="user", content=fill(where, prompt, record)))
        yield Task(
            id=_task_id(where, record, chosen.text("id")) if chosen.has("id") else f"{purpose}-{number}",
            messages=tuple(messages),
            environment=environment,
            payload={**chosen.mapping("constants"), **_payload(where, record, options)},
        )


def fill(where: str, template: str, record: Mapping[str, Any]) -> str:
    """Return `template` with each {field} replaced by the record's value, and {{name}} by {name}; other braces stay.

    Braces in the record's values stay, too. Raises TaskFileError for a field that the record lacks.
    """

    def value(match: re.Match[str]) -> str:
        if match[1] is not None:
            return f"{{{match[1]}}}"
        content = field(where, record, match[2])
        if isinstance(content, bool) or not isinstance(content, str | int | float):
            raise bad_field(where, match[2], content, "a string or a number, for a prompt")
        return str(content)

    return _FIELD.sub(value, template)


def _task_id(where: str, record: Mapping[str, Any], key: str) -> str:
    value = field(where, record, key)
    if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip():
        raise bad_field(where, key, value, "a string or an integer, for an id")
    return str(value)


def _payload(where: str, record: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    wanted = options.get("payload")
    if wanted is None:
        return dict(record)
    if isinstance(wanted, list):
        wanted = {key: key for key in wanted}
    if not isinstance(wanted, dict) or not all(isinstance(key, str) for key in wanted.values()):
        raise bad_field("tasks.options", "payload", wanted, "a list of fields, or an object: name -> field")
    return {name: field(where, record, key) for name, key in wanted.items()}

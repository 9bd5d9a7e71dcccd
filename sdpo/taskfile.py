"""Read a task set: JSON lines, JSON or Parquet, one `Task` a record. Every failure is a one-line `TaskFileError`.

A line looks like {"id": "double-it", "messages": [{"role": "user", "content": "Write f(x): double it."}],
"environment": "code", "payload": {...}}.
"""

import dataclasses
import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, get_args, get_type_hints

from sdpo.errors import TaskFileError
from sdpo.records import PARQUET, parse_json, read_file
from sdpo.show import show
from sdpo.types import Message, Task

_TASK_KEYS = tuple(f.name for f in dataclasses.fields(Task))
_MESSAGE_KEYS = tuple(f.name for f in dataclasses.fields(Message))
_ROLES: tuple[str, ...] = get_args(get_type_hints(Message)["role"])


def load_tasks(path: str | Path) -> list[Task]:
    """The tasks of a file in its order, in any form of `sdpo.records`. Raises `TaskFileError`, also for no tasks.

    In Parquet, `messages` and `payload` are nested columns or JSON as text. A nested column cannot tell a key that a
    row lacks from one that is null: there both count as lacking.
    """
    tasks: list[Task] = []
    place_of: dict[str, str] = {}
    for where, record in read_file(str(path)):
        task = _parse_task(where, _of_columns(where, record) if str(path).endswith(PARQUET) else record)
        if task.id in place_of:
            raise TaskFileError(f"{where}: id={show(task.id)}: already used on {place_of[task.id]}")
        place_of[task.id] = where.removeprefix(f"{path}, ")
        tasks.append(task)
    if not tasks:
        raise TaskFileError(f"{path}: holds no tasks; allowed: objects with {', '.join(_TASK_KEYS)}, one a line or row")
    return tasks


def check_task_set(source: str, tasks: Sequence[Task]) -> None:
    """Raises `TaskFileError` where tasks that a program made could not have stood in a task file. `source` is named."""
    seen: set[str] = set()
    for task in tasks:
        line = to_line(task)
        if task.id in seen:
            raise TaskFileError(f"{source}: id={show(task.id)}: made for two tasks; ids must be unique")
        seen.add(task.id)
        _parse_task(f"{source}, task {show(task.id)}", json.loads(line))
    if not tasks:
        raise TaskFileError(f"{source}: no tasks were made of it")


def to_line(task: Task) -> str:
    """The task as one line of a task file, without the line feed. Raises `TaskFileError` for what JSON cannot hold."""
    messages = [dataclasses.asdict(message) for message in task.messages]
    line = {"id": task.id, "messages": messages, "environment": task.environment, "payload": task.payload}
    try:
        text = json.dumps(line, ensure_ascii=False, allow_nan=False)
        text.encode()  # half a surrogate pair is no text
    except (TypeError, ValueError, RecursionError) as error:
        raise TaskFileError(f"task {show(task.id)}: cannot be written as JSON: {error}") from None
    return text


def digest(tasks: Iterable[Task]) -> str:
    """SHA-256 of the tasks as a task file's lines."""
    return sha256("\n".join(map(to_line, tasks)).encode()).hexdigest()


def _of_columns(where: str, row: dict[str, Any]) -> dict[str, Any]:
    """A Parquet row as a task file's line would have it."""
    nested = {}
    for key in ("messages", "payload"):
        if isinstance(value := row.get(key), str):
            nested[key] = parse_json(f"{where}: {key}={show(value)}", value)
        elif key in row:
            nested[key] = _without_nulls(value)
    return row | nested


def _without_nulls(value: Any) -> Any:
    """Objects without their keys that are null, at every depth; lists keep all."""
    if isinstance(value, dict):
        return {key: _without_nulls(below) for key, below in value.items() if below is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


def _parse_task(where: str, data: Any) -> Task:
    """One record. `where` starts every error's text."""
    _check_keys(where, "", data, _TASK_KEYS)
    return Task(
        id=_text(where, "id", data["id"]),
        messages=_parse_messages(where, data["messages"]),
        environment=_text(where, "environment", data["environment"]),
        payload=_mapping(where, "payload", data["payload"]),
    )


def _parse_messages(where: str, data: Any) -> tuple[Message, ...]:
    """At least one message, the user's last."""
    if not isinstance(data, list) or not data:
        raise TaskFileError(f"{where}: messages={show(data)}: allowed: a list of at least one message")
    messages = []
    for i, item in enumerate(data):
        key = f"messages[{i}]"
        _check_keys(where, f"{key}.", item, _MESSAGE_KEYS)
        if item["role"] not in _ROLES:
            raise TaskFileError(f"{where}: {key}.role={show(item['role'])}: allowed: {', '.join(_ROLES)}")
        messages.append(Message(role=item["role"], content=_text(where, f"{key}.content", item["content"])))
    if messages[-1].role != "user":
        key = f"messages[{len(messages) - 1}].role"
        raise TaskFileError(f"{where}: {key}={messages[-1].role}: allowed: user, for the last message")
    return tuple(messages)


def _check_keys(where: str, prefix: str, data: Any, keys: tuple[str, ...]) -> None:
    """An object with exactly these keys."""
    if not isinstance(data, dict):
        name = prefix.rstrip(".") or "task"
        raise TaskFileError(f"{where}: {name}={show(data)}: allowed: an object with {', '.join(keys)}")
    for key in data:
        if key not in keys:
            near = difflib.get_close_matches(key, keys, n=1)
            hint = f"nearest known key: {prefix}{near[0]}" if near else f"allowed: {', '.join(keys)}"
            raise TaskFileError(f"{where}: {prefix}{show(key)}: unknown key; {hint}")
    for key in keys:
        if key not in data:
            raise TaskFileError(f"{where}: {prefix}{key}: missing; allowed: {', '.join(keys)}")


def _text(where: str, key: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise TaskFileError(f"{where}: {key}={show(value)}: allowed: a string that is not blank")
    return value


def _mapping(where: str, key: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise TaskFileError(f"{where}: {key}={show(value)}: allowed: an object")
    return value

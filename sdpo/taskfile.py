"""Read a task set: JSONL, one `Task` a line. Every failure is a one-line `TaskFileError`.

A line looks like {"id": "double-it", "messages": [{"role": "user", "content": "Write f(x): double it."}],
"environment": "code", "payload": {...}}.
"""

import dataclasses
import difflib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args, get_type_hints

from sdpo.errors import TaskFileError
from sdpo.show import show
from sdpo.types import Message, Task

_TASK_KEYS = tuple(f.name for f in dataclasses.fields(Task))
_MESSAGE_KEYS = tuple(f.name for f in dataclasses.fields(Message))
_ROLES: tuple[str, ...] = get_args(get_type_hints(Message)["role"])


def load_tasks(path: str | Path) -> list[Task]:
    """The tasks of a file in its order; blank lines are skipped. Raises `TaskFileError`, also for no tasks."""
    tasks: list[Task] = []
    line_of: dict[str, int] = {}
    for number, line in enumerate(_read_lines(Path(path)), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        task = _parse_task(where, line)
        if task.id in line_of:
            raise TaskFileError(f"{where}: id={show(task.id)}: already used on line {line_of[task.id]}")
        line_of[task.id] = number
        tasks.append(task)
    if not tasks:
        raise TaskFileError(f"{path}: holds no tasks; allowed: one JSON object a line with {', '.join(_TASK_KEYS)}")
    return tasks


def check_task_set(source: str, tasks: Sequence[Task]) -> None:
    """Raises `TaskFileError` where tasks that a program made could not have stood in a task file. `source` is named."""
    seen: set[str] = set()
    for task in tasks:
        line = to_line(task)
        if task.id in seen:
            raise TaskFileError(f"{source}: id={show(task.id)}: made for two tasks; ids must be unique")
        seen.add(task.id)
        _parse_task(f"{source}, task {show(task.id)}", line)
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


def _read_lines(path: Path) -> list[str]:
    """Split at line feeds only: JSON strings may hold other line separators."""
    try:
        return path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError:
        raise TaskFileError(f"{path}: no such task file") from None
    except UnicodeDecodeError:
        raise TaskFileError(f"{path}: cannot be read: not UTF-8 text") from None
    except OSError as error:
        raise TaskFileError(f"{path}: cannot be read: {error.strerror}") from None


def _parse_task(where: str, line: str) -> Task:
    """One line. `where` starts every error's text."""
    try:
        data = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        reason = f"{error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else "too deep"
        raise TaskFileError(f"{where}: not JSON: {reason}") from None
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

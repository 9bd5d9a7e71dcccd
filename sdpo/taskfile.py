"""Read a task set from JSON lines, JSON or Parquet, one `Task` for each record. Failures are one-line `TaskFileError`s.

A line looks like {"id": "double-it", "messages": [{"role": "user", "content": "Write f(x): double it."}],
"environment": "code", "payload": {...}}. `tools` may be left out.
"""

import dataclasses
import difflib
import json
from collections.abc import Iterable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, get_args, get_type_hints

from sdpo.errors import TaskFileError
from sdpo.records import PARQUET, parse_json, read_file
from sdpo.show import show
from sdpo.types import Message, Task

_OPTIONAL = ("tools",)
_TASK_KEYS = tuple(f.name for f in dataclasses.fields(Task) if f.name not in _OPTIONAL)
_TOOL = '{"type": "function", "function": {"name", "description", "parameters"}}'
_MESSAGE_KEYS = tuple(f.name for f in dataclasses.fields(Message))
_ROLES: tuple[str, ...] = get_args(get_type_hints(Message)["role"])


def load_tasks(path: str | Path) -> list[Task]:
    """Return the tasks of a file in its order, in any format of `sdpo.records`. Raises `TaskFileError`, also for none.

    In Parquet, `messages` and `payload` are nested columns or JSON as text. A nested column does not distinguish a key
    that a row lacks from one that is null: there both count as missing.
    """
    tasks: list[Task] = []
    first_use: dict[str, str] = {}
    for where, record in read_file(str(path)):
        task = _parse_task(where, _of_columns(where, record) if str(path).endswith(PARQUET) else record)
        try:
            to_line(task)
        except TaskFileError as error:  # NaN, half a surrogate pair
            raise TaskFileError(f"{where}: {error}") from None
        if task.id in first_use:
            raise TaskFileError(f"{where}: id={show(task.id)}: already used on {first_use[task.id]}")
        first_use[task.id] = where.removeprefix(f"{path}, ")
        tasks.append(task)
    if not tasks:
        raise TaskFileError(f"{path}: holds no tasks; allowed: objects with {', '.join(_TASK_KEYS)}, one a line or row")
    return tasks


def check_task_set(source: str, tasks: Sequence[Task]) -> None:
    """Raises `TaskFileError` that names `source` if tasks that a program made cannot be those of a task file."""
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
    """Return a task as one line of a task file, without the line feed. Raises `TaskFileError` for no JSON."""
    messages = [dataclasses.asdict(message) for message in task.messages]
    line = {"id": task.id, "messages": messages, "environment": task.environment, "payload": task.payload}
    line |= {"tools": list(task.tools)} if task.tools else {}
    try:
        text = json.dumps(line, ensure_ascii=False, allow_nan=False)
        text.encode()  # half a surrogate pair is no text
    except (TypeError, ValueError, RecursionError) as error:
        raise TaskFileError(f"task {show(task.id)}: cannot be written as JSON: {error}") from None
    return text


def digest(tasks: Iterable[Task]) -> str:
    """Return the SHA-256 of the tasks as lines of a task file."""
    return sha256("\n".join(map(to_line, tasks)).encode()).hexdigest()


def _of_columns(where: str, row: dict[str, Any]) -> dict[str, Any]:
    """Return a Parquet row as the object that a line of a task file holds."""
    nested = {}
    for key in ("messages", "payload", "tools"):
        if isinstance(value := row.get(key), str):
            nested[key] = parse_json(f"{where}: {key}={show(value)}", value)
    return row | nested


def _parse_task(where: str, data: Any) -> Task:
    """Return the task of one record. Raises `TaskFileError` that starts with `where`."""
    _check_keys(where, "", data, _TASK_KEYS, _OPTIONAL)
    _require_text(where, "id", data["id"])
    messages = _parse_messages(where, data["messages"])
    _require_text(where, "environment", data["environment"])
    _require(isinstance(data["payload"], dict), where, "payload", data["payload"], "an object")
    return Task(**(data | {"messages": messages, "tools": _parse_tools(where, data.get("tools"))}))


def _parse_tools(where: str, data: Any) -> tuple[dict[str, Any], ...]:
    """Return the tools of a task, of different names; none where they are missing."""
    if data is None:
        return ()
    _require(isinstance(data, list), where, "tools", data, f"a list of {_TOOL}")
    names = set()
    for i, item in enumerate(data):
        function = item.get("function") if isinstance(item, dict) and item.get("type") == "function" else None
        name = function.get("name") if isinstance(function, dict) else None
        _require(isinstance(name, str) and bool(name.strip()), where, f"tools[{i}]", item, _TOOL)
        _require(name not in names, where, f"tools[{i}].function.name", name, "names of which each is used once")
        names.add(name)
    return tuple(data)


def _parse_messages(where: str, data: Any) -> tuple[Message, ...]:
    """Return the messages of a task: at least one, the last of the user."""
    _require(isinstance(data, list) and bool(data), where, "messages", data, "a list of at least one message")
    for i, item in enumerate(data):
        _check_keys(where, f"messages[{i}].", item, _MESSAGE_KEYS)
        _require(item["role"] in _ROLES, where, f"messages[{i}].role", item["role"], ", ".join(_ROLES))
        _require_text(where, f"messages[{i}].content", item["content"])
    last = data[-1]["role"]
    _require(last == "user", where, f"messages[{len(data) - 1}].role", last, "user, for the last message")
    return tuple(Message(**item) for item in data)


def _check_keys(where: str, prefix: str, data: Any, keys: tuple[str, ...], optional: tuple[str, ...] = ()) -> None:
    """Raises `TaskFileError` unless `data` is an object with these keys and no others than the optional ones."""
    _require(isinstance(data, dict), where, prefix.rstrip(".") or "task", data, f"an object with {', '.join(keys)}")
    for key in data:
        if key not in (*keys, *optional):
            near = difflib.get_close_matches(key, (*keys, *optional), n=1)
            hint = f"nearest known key: {prefix}{near[0]}" if near else f"allowed: {', '.join((*keys, *optional))}"
            raise TaskFileError(f"{where}: {prefix}{show(key)}: unknown key; {hint}")
    for key in keys:
        if key not in data:
            raise TaskFileError(f"{where}: {prefix}{key}: missing; allowed: {', '.join(keys)}")


def _require_text(where: str, key: str, value: Any) -> None:
    _require(isinstance(value, str) and bool(value.strip()), where, key, value, "a string that is not blank")


def _require(is_allowed: bool, where: str, key: str, value: Any, allowed: str) -> None:
    """Raises `TaskFileError` with the key, its value and what is allowed, unless the value is."""
    if not is_allowed:
        raise TaskFileError(f"{where}: {key}={show(value)}: allowed: {allowed}")

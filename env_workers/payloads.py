"""Reading `Task.payload`: one line naming the task, the key, the value and what is allowed. Raises TaskFileError."""

from collections.abc import Collection, Mapping
from typing import Any

from sdpo.errors import TaskFileError
from sdpo.show import show
from sdpo.types import Task


def refuse(task: Task, key: str, value: Any, allowed: str) -> TaskFileError:
    """The error for a value that cannot be used; `key` is a path from the payload: `tools[0].name`."""
    return TaskFileError(f"task {task.id}: payload.{key} is {show(value)}; allowed: {allowed}")


def only_keys(task: Task, mapping: Any, allowed: Collection[str], key: str = "") -> Mapping[str, Any]:
    """`mapping` itself, when it is a mapping and holds no other key than the allowed ones."""
    if not isinstance(mapping, Mapping):
        raise refuse(task, key, mapping, "a mapping")
    unknown = sorted(set(mapping) - set(allowed), key=str)
    if unknown:
        where = f"payload.{key}" if key else "payload"
        names = ", ".join(sorted(allowed))
        raise TaskFileError(f"task {task.id}: {where} has the unknown key {show(unknown[0])}; allowed: {names}")
    return mapping


def text_at(task: Task, mapping: Mapping[str, Any], name: str, key: str = "") -> str:
    """The string under `name`, which must hold more than blanks."""
    value = mapping.get(name)
    if not isinstance(value, str) or not value.strip():
        raise refuse(task, f"{key}.{name}" if key else name, value, "a string that is not blank")
    return value


def list_at(task: Task, mapping: Mapping[str, Any], name: str, *, empty: bool = False) -> list[Any]:
    """The list under `name`; of at least one item unless `empty`."""
    value = mapping.get(name)
    if not isinstance(value, list | tuple) or not (value or empty):
        raise refuse(task, name, value, "a list" if empty else "a list of at least one item")
    return list(value)


def flag_at(task: Task, mapping: Mapping[str, Any], name: str, key: str = "") -> bool:
    """The boolean under `name`; False where it is missing."""
    value = mapping.get(name, False)
    if type(value) is not bool:
        raise refuse(task, f"{key}.{name}" if key else name, value, "true or false")
    return value


def number_at(task: Task, mapping: Mapping[str, Any], name: str, default: float, key: str = "") -> float:
    """The number under `name`, finite and at least 0."""
    value = mapping.get(name, default)
    if type(value) not in (int, float) or not 0 <= value < float("inf"):
        raise refuse(task, f"{key}.{name}" if key else name, value, "a number of at least 0")
    return float(value)

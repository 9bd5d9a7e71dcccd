"""Readers of `Task.payload`. Each raises TaskFileError: one line with the task, the key, the value, what is allowed."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from sdpo.errors import TaskFileError
from sdpo.own_code import nearest
from sdpo.show import show
from sdpo.types import Task


def refuse(task: Task, key: str, value: Any, allowed: str) -> TaskFileError:
    """Return the error for a value that cannot be used; `key` is a path from the payload: `tools[0].name`."""
    return TaskFileError(f"task {task.id}: payload.{key} is {show(value)}; allowed: {allowed}")


def only_keys(task: Task, mapping: Any, allowed: Collection[str], key: str = "") -> Mapping[str, Any]:
    """Return `mapping`, which must be a mapping with no other keys than the allowed ones."""
    if not isinstance(mapping, Mapping):
        raise refuse(task, key, mapping, "a mapping")
    unknown = sorted(set(mapping) - set(allowed), key=str)
    if unknown:
        where = f"payload.{key}" if key else "payload"
        hint = f"{nearest(str(unknown[0]), allowed)}; allowed: {', '.join(sorted(allowed))}"
        raise TaskFileError(f"task {task.id}: {where} has the unknown key {show(unknown[0])}{hint}")
    return mapping


def text_at(
    task: Task, mapping: Mapping[str, Any], name: str, key: str = "", *, blank: bool = False, max_chars: int = 2**63
) -> str:
    """Return the string under `name`; it must hold more than blanks unless `blank`."""
    allowed = "a string" if blank else "a string that is not blank"
    text: str = _read(task, mapping, name, key, allowed, lambda v: isinstance(v, str) and (blank or bool(v.strip())))
    _check_length(task, _path(key, name), len(text), max_chars)
    return text


def texts_at(task: Task, mapping: Mapping[str, Any], name: str, key: str, max_chars: int) -> tuple[str, ...]:
    """Return the list of at least one string under `name`; together they may have `max_chars`."""
    texts = _read(task, mapping, name, key, "a list of at least one string", lambda v: v and is_texts(v))
    _check_length(task, _path(key, name), sum(map(len, texts)), max_chars)
    return tuple(texts)


def list_at(task: Task, mapping: Mapping[str, Any], name: str, of: str = "item", *, empty: bool = False) -> list[Any]:
    """Return the list under `name`; of at least one item unless `empty`. `of` is the word for an item."""
    allowed = "a list" if empty else f"a list of at least one {of}"
    return list(_read(task, mapping, name, "", allowed, lambda v: isinstance(v, list | tuple) and bool(v or empty)))


def flag_at(task: Task, mapping: Mapping[str, Any], name: str, key: str = "") -> bool:
    """Return the boolean under `name`; False where it is missing."""
    return bool(_read(task, mapping, name, key, "true or false", lambda v: type(v) is bool, default=False))


def choice_at(task: Task, mapping: Mapping[str, Any], name: str, choices: Sequence[str], key: str = "") -> Any:
    """Return the one of `choices` that stands under `name`; the first where it is missing."""
    return _read(task, mapping, name, key, ", ".join(choices), lambda v: v in choices, default=choices[0])


def number_at(task: Task, mapping: Mapping[str, Any], name: str, default: float, key: str = "") -> float:
    """Return the number under `name`, finite and at least 0."""
    allowed = "a number of at least 0"
    return float(_read(task, mapping, name, key, allowed, lambda v: _is_finite(v) and v >= 0, default=default))


def seconds_at(task: Task, payload: Mapping[str, Any]) -> float | None:
    """Return `payload.time_limit_s`, a number of seconds above 0; None where it is missing."""
    allowed = "a number of seconds above 0"
    seconds: float | None = _read(
        task, payload, "time_limit_s", "", allowed, lambda v: v is None or (_is_finite(v) and v > 0)
    )
    return seconds


def _read(
    task: Task,
    mapping: Mapping[str, Any],
    name: str,
    key: str,
    allowed: str,
    is_allowed: Callable[[Any], Any],
    default: Any = None,
) -> Any:
    value = mapping.get(name, default)
    if not is_allowed(value):
        raise refuse(task, _path(key, name), value, allowed)
    return value


def _path(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name


def _is_finite(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < float("inf")


def is_texts(value: Any) -> bool:
    """Whether it is a list of strings."""
    return isinstance(value, list | tuple) and all(isinstance(item, str) for item in value)


def _check_length(task: Task, key: str, num_chars: int, max_chars: int) -> None:
    if num_chars > max_chars:
        raise TaskFileError(f"task {task.id}: payload.{key} is longer than {max_chars} characters")

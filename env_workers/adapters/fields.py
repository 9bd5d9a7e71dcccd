"""Options of an adapter and fields of a record, read with their types; each error names key, value and what is allowed.

`where` names a record, for example "train.jsonl, line 3", as `read_records` gives it.
"""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from env_workers.adapters.records import READ_OPTIONS
from sdpo.errors import TaskFileError
from sdpo.show import show


class Options:
    """`tasks.options` of one adapter. `own` are the keys that it knows beside those of `read_records`."""

    def __init__(self, adapter: str, options: Mapping[str, Any], own: Sequence[str] = ()) -> None:
        """Raises TaskFileError for an unknown key."""
        self._options = options
        allowed = (*own, *READ_OPTIONS)
        for key in options:
            if key not in allowed:
                near = difflib.get_close_matches(str(key), allowed, n=1)
                hint = f"nearest: {near[0]}; " if near else ""
                raise TaskFileError(
                    f"tasks.options.{key}: adapter {adapter} has no such option; {hint}allowed: {', '.join(allowed)}"
                )

    def text(self, key: str, default: str | None = None) -> str:
        """A string that is not blank. Without a default the option must be given."""
        value = self._get(key, default, "a string that is not blank")
        if not isinstance(value, str) or not value.strip():
            raise self._bad(key, value, "a string that is not blank")
        return value

    def choice(self, key: str, choices: Sequence[str], default: str | None = None) -> str:
        """One of `choices`."""
        value = self._get(key, default, ", ".join(choices))
        if value not in choices:
            raise self._bad(key, value, ", ".join(choices))
        return str(value)

    def integer(self, key: str, default: int | None = None, *, at_least: int = 0) -> int:
        """A whole number."""
        value = self._get(key, default, f"an integer of at least {at_least}")
        if type(value) is not int or value < at_least:
            raise self._bad(key, value, f"an integer of at least {at_least}")
        return value

    def fraction(self, key: str, default: float | None = None) -> float:
        """A number from 0 to 1."""
        value = self._get(key, default, "a number from 0 to 1")
        if type(value) not in (int, float) or not 0 <= value <= 1:
            raise self._bad(key, value, "a number from 0 to 1")
        return float(value)

    def flag(self, key: str, default: bool = False) -> bool:
        """true or false."""
        value = self._get(key, default, "true, false")
        if not isinstance(value, bool):
            raise self._bad(key, value, "true, false")
        return value

    def texts(self, key: str, default: Sequence[str] = ()) -> tuple[str, ...]:
        """A list of strings."""
        value = self._get(key, list(default), "a list of strings")
        if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
            raise self._bad(key, value, "a list of strings")
        return tuple(value)

    def mapping(self, key: str) -> Mapping[str, Any]:
        """Key -> value, as YAML gives it; empty if the option is not given."""
        value = self._get(key, {}, "an object")
        if not isinstance(value, Mapping):
            raise self._bad(key, value, "an object")
        return value

    def has(self, key: str) -> bool:
        """Whether the option was given."""
        return self._options.get(key) is not None

    def _get(self, key: str, default: Any, allowed: str) -> Any:
        value = self._options.get(key)
        if value is None:
            value = default
        if value is None:
            raise TaskFileError(f"tasks.options.{key}: missing; allowed: {allowed}")
        return value

    def _bad(self, key: str, value: Any, allowed: str) -> TaskFileError:
        return TaskFileError(f"tasks.options.{key}={show(value)}: allowed: {allowed}")


def field(where: str, record: Mapping[str, Any], key: str) -> Any:
    """A field that must be there."""
    if key not in record:
        raise TaskFileError(f"{where}: {key}: missing; the record has {show(', '.join(map(str, record)))}")
    return record[key]


def text_field(where: str, record: Mapping[str, Any], key: str, *, blank: bool = False) -> str:
    """A string; a blank one only where `blank` allows it."""
    value = field(where, record, key)
    if not isinstance(value, str) or not (blank or value.strip()):
        raise bad_field(where, key, value, "a string" if blank else "a string that is not blank")
    return value


def list_field(where: str, record: Mapping[str, Any], key: str) -> list[Any]:
    """A list."""
    value = field(where, record, key)
    if not isinstance(value, list):
        raise bad_field(where, key, value, "a list")
    return value


def mapping_field(where: str, record: Mapping[str, Any], key: str) -> dict[str, Any]:
    """An object."""
    value = field(where, record, key)
    if not isinstance(value, dict):
        raise bad_field(where, key, value, "an object")
    return value


def bad_field(where: str, key: str, value: Any, allowed: str) -> TaskFileError:
    """The error to raise for a value that cannot be used."""
    return TaskFileError(f"{where}: {key}={show(value)}: allowed: {allowed}")

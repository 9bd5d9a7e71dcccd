"""Options of an adapter and fields of a record, read with their types; each error names key, value and what is allowed.

`where` names a record, for example "train.jsonl, line 3", as `read_records` gives it.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from env_workers.adapters.records import READ_OPTIONS
from env_workers.payloads import is_texts
from sdpo.errors import TaskFileError
from sdpo.own_code import nearest
from sdpo.show import show


class Options:
    """`tasks.options` of one adapter. `own` are the keys that it knows beside those of `read_records`."""

    def __init__(self, adapter: str, options: Mapping[str, Any], own: Sequence[str] = ()) -> None:
        """Raise TaskFileError for an unknown key."""
        self._options = options
        allowed = (*own, *READ_OPTIONS)
        for key in options:
            if key not in allowed:
                hint = f"{nearest(str(key), allowed)}; allowed: {', '.join(allowed)}"
                raise TaskFileError(f"tasks.options.{key}: adapter {adapter} has no such option{hint}")

    def text(self, key: str, default: str | None = None) -> str:
        """Return a string that is not blank. Without a default the option must be given."""
        return str(self._get(key, default, "a string that is not blank", lambda v: isinstance(v, str) and v.strip()))

    def choice(self, key: str, choices: Sequence[str], default: str | None = None) -> str:
        """Return one of `choices`."""
        return str(self._get(key, default, ", ".join(choices), lambda v: v in choices))

    def integer(self, key: str, default: int | None = None, *, at_least: int = 0) -> int:
        """Return a whole number."""
        allowed = f"an integer of at least {at_least}"
        return int(self._get(key, default, allowed, lambda v: type(v) is int and v >= at_least))

    def fraction(self, key: str, default: float | None = None) -> float:
        """Return a number from 0 to 1."""
        return float(self._get(key, default, "a number from 0 to 1", lambda v: type(v) in (int, float) and 0 <= v <= 1))

    def flag(self, key: str, default: bool = False) -> bool:
        """Return true or false."""
        return bool(self._get(key, default, "true, false", lambda v: isinstance(v, bool)))

    def texts(self, key: str) -> tuple[str, ...]:
        """Return a list of strings; empty if the option is not given."""
        return tuple(self._get(key, [], "a list of strings", is_texts))

    def mapping(self, key: str) -> Mapping[str, Any]:
        """Return keys and values, as YAML gives them; empty if the option is not given."""
        return dict(self._get(key, {}, "an object", lambda v: isinstance(v, Mapping)))

    def has(self, key: str) -> bool:
        """Whether the option was given."""
        return self._options.get(key) is not None

    def _get(self, key: str, default: Any, allowed: str, is_allowed: Callable[[Any], Any]) -> Any:
        value = self._options.get(key)
        if value is None:
            value = default
        if value is None:
            raise TaskFileError(f"tasks.options.{key}: missing; allowed: {allowed}")
        if not is_allowed(value):
            raise TaskFileError(f"tasks.options.{key}={show(value)}: allowed: {allowed}")
        return value


def numbered(name: str, purpose: str, number: int) -> str:
    """Return the id of a task whose record has none: held-out tasks have ids of their own."""
    return f"{name}-{number}" if purpose == "train" else f"{name}-{purpose}-{number}"


def field(where: str, record: Mapping[str, Any], key: str) -> Any:
    """Return a field that must be there."""
    if key not in record:
        raise TaskFileError(f"{where}: {key}: missing; the record has {show(', '.join(map(str, record)))}")
    return record[key]


def text_field(where: str, record: Mapping[str, Any], key: str, *, blank: bool = False) -> str:
    """Return a string; a blank one only where `blank` allows it."""
    value = field(where, record, key)
    if not isinstance(value, str) or not (blank or value.strip()):
        raise bad_field(where, key, value, "a string" if blank else "a string that is not blank")
    return value


def list_field(where: str, record: Mapping[str, Any], key: str) -> list[Any]:
    """Return a list."""
    value = field(where, record, key)
    if not isinstance(value, list):
        raise bad_field(where, key, value, "a list")
    return value


def bad_field(where: str, key: str, value: Any, allowed: str) -> TaskFileError:
    """Return the error for a value that cannot be used."""
    return TaskFileError(f"{where}: {key}={show(value)}: allowed: {allowed}")

"""Read a run file and its overrides into a `RunConfig`; write one back. Every failure is a one-line `ConfigError`."""

import copy
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from sdpo.config.explain import explain
from sdpo.config.keys import default_kind, member_of_kind, sections_of, text_key
from sdpo.config.plain_yaml import NONE_WORDS, dump_yaml, parse_yaml
from sdpo.config.run import RunConfig
from sdpo.encoding import decode
from sdpo.errors import ConfigError
from sdpo.secrets import secrets_in
from sdpo.section import Section
from sdpo.show import show


def load_run_config(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read the YAML file at `path`, changed by `key=value` overrides (dotted keys, the last one wins). The value is
    YAML, of a key that holds text the text itself: `name=1_1_1`, `dir=/a b #1`; in quotes what they enclose.

    Types are strict: `steps: 1.0` and `steps: "1"` are refused. A union without a `kind` has the default's. An override
    that changes the `kind` of a section starts that section anew. Raises `ConfigError`.
    """
    return _validated(read_run_file(Path(path).expanduser()), [_parse_override(text) for text in overrides])


def make_run_config(data: Mapping[str, Any], changes: Mapping[str, Any]) -> RunConfig:
    """Make a config, as `load_run_config` does, of what a run file would hold and of dotted keys with their values.
    Changes neither.
    """
    _refuse_foreign_values("config", {**data})
    parsed = []
    for name, value in changes.items():
        if not all(name.split(".")):
            raise ConfigError(f"{name!r}: allowed: dotted keys, for example batch.tasks")
        _refuse_foreign_values(name, value)
        parsed.append((name.split("."), value))
    return _validated(copy.deepcopy(dict(data)), parsed)


def _validated(data: dict[str, Any], parsed: list[tuple[list[str], Any]]) -> RunConfig:
    _fill_kinds(data, RunConfig)
    for names, value in sorted(parsed, key=lambda item: item[0][-1] != "kind"):
        _apply(data, names, value)
    _fill_kinds(data, RunConfig)
    _refuse_secrets(data)
    try:
        return RunConfig.model_validate_json(json.dumps(data), strict=True)
    except ValidationError as error:
        first, *others = explain(error, RunConfig)
        raise ConfigError(first + (f" (and {len(others)} more)" if others else "")) from None


def dump_run_config(config: RunConfig) -> str:
    """Return the resolved config as YAML; `load_run_config` reads it back as an equal one."""
    return dump_yaml(config.model_dump(mode="json"))


def read_run_file(path: Path) -> dict[str, Any]:
    """Return the file's mapping as it stands there, not validated; {} if it holds nothing. Raises `ConfigError`."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such run file") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    try:
        data = parse_yaml(decode(content))
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from None
    data = {} if data is None else data
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: {show(data)}: allowed: a mapping with the keys {', '.join(RunConfig.model_fields)}")
    _refuse_foreign_values(str(path), data)
    return data


def _refuse_secrets(data: Mapping[str, Any]) -> None:
    """Refuse secrets: what a run file holds is written to config.yaml and can be read on the pages of a cluster."""
    for key in secrets_in(data):
        raise ConfigError(f"{key}: holds a secret; allowed: values without, secrets belong in environment variables")


def _parse_override(text: str) -> tuple[list[str], Any]:
    """Return the key's parts and the value of one `key=value`."""
    name, equals, raw = text.partition("=")
    name = name.strip()
    if not equals or not all(name.split(".")):
        raise ConfigError(f"{text!r}: allowed: a dotted key, an equals sign and a value, for example batch.tasks=8")
    kind = text_key(name, RunConfig)
    try:
        value = parse_yaml(raw) if kind is None else _as_text(raw.strip(), or_none=kind != "text")
    except ValueError as error:
        raise ConfigError(f"override {show(repr(text))}: {error}") from None
    _refuse_foreign_values(f"override {show(repr(text))}", value)
    return name.split("."), value


def _as_text(raw: str, *, or_none: bool) -> str | None:
    """Return the value of a key that holds text: `raw` itself, what quotes around all of it enclose, or none."""
    if raw[:1] in ("'", '"') and raw[-1:] == raw[:1] and isinstance(value := parse_yaml(raw), str):
        return value
    return None if or_none and raw in NONE_WORDS else raw


def _refuse_foreign_values(source: str, data: Any) -> None:
    """Refuse what cannot be written as JSON: YAML's own types and cycles, and text that is no UTF-8. Numbers that are
    not finite pass, and are refused with their key.
    """
    try:
        json.dumps(data, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ConfigError(f"{source}: not UTF-8 text; allowed: UTF-8 text") from None
    except (TypeError, ValueError, RecursionError):
        raise ConfigError(f"{source}: allowed: mappings, lists, strings, numbers, true, false and none") from None


def _apply(data: dict[str, Any], names: list[str], value: Any) -> None:
    """Set one dotted key in place. Raises `ConfigError` where the way leads through a plain value."""
    node = data
    for depth, name in enumerate(names[:-1]):
        below = node.setdefault(name, {})
        if below is None:
            below = node[name] = {}
        if not isinstance(below, dict):
            dotted, through = ".".join(names), ".".join(names[: depth + 1])
            raise ConfigError(f"{dotted}={show(value)}: {through}={show(below)} is not a mapping of keys")
        node = below
    if names[-1] == "kind" and node.get("kind") != value:
        node.clear()
    node[names[-1]] = value


def _fill_kinds(data: dict[str, Any], section: type[Section]) -> None:
    """Give every union in `data` that names no `kind` the kind of its default."""
    for name, field in section.model_fields.items():
        below, sections = data.get(name), sections_of(field.annotation)
        if not sections or not isinstance(below, dict):
            continue
        if len(sections) > 1 and (kind := default_kind(field)) is not None:
            below.setdefault("kind", kind)
        member = sections[0] if len(sections) == 1 else member_of_kind(sections, below.get("kind"))
        if member is not None:
            _fill_kinds(below, member)

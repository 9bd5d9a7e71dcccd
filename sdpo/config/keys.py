"""The keys that a run file may hold: a walk over the sections, and what each key allows, in words."""

import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from sdpo.bounds import bare, in_words
from sdpo.section import OneOf, Section

_SCALAR_WORDS = {int: "an integer", float: "a number", bool: "true or false", str: "a string"}
_PLURALS = {int: "integers", float: "numbers", str: "strings"}
_EXAMPLES = {int: "[1, 2]", float: "[0.5, 1.0]", str: "[one, two]"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One key by its dotted name, for example "objective.top_k"; `sections` is empty for a plain value."""

    name: str
    field: FieldInfo
    sections: tuple[type[Section], ...]


def sections_of(annotation: Any) -> tuple[type[Section], ...]:
    """Return the section classes that a value of this annotation may be: several for a union chosen by `kind`."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return (annotation,)
    return tuple(s for part in get_args(annotation) for s in sections_of(part))


def walk_keys(section: type[Section], prefix: str = "") -> Iterator[Key]:
    """Yield every key below `section`, members of unions included (a shared name comes once each)."""
    for name, field in section.model_fields.items():
        key = Key(name=prefix + name, field=field, sections=sections_of(field.annotation))
        yield key
        for below in key.sections:
            yield from walk_keys(below, f"{key.name}.")


def text_key(name: str, root: type[Section]) -> str | None:
    """Return whether the key of this dotted name holds text: "text", "text or none", or None for another type."""
    kinds = set[str | None]()
    for key in walk_keys(root):
        annotation = key.field.annotation
        if annotation == dict[str, str] and name.startswith(f"{key.name}."):
            return "text"
        if key.name == name:
            kinds.add("text" if annotation is str else "text or none" if annotation == str | None else None)
    return kinds.pop() if len(kinds) == 1 else None


def member_of_kind(sections: tuple[type[Section], ...], kind: Any) -> type[Section] | None:
    """Return the member of a union whose `kind` is this one."""
    return next((s for s in sections if kind in get_args(s.model_fields["kind"].annotation)), None)


def default_kind(field: FieldInfo) -> str | None:
    """Return the `kind` of a union's default member."""
    kind = getattr(field.default, "kind", None)
    return kind if isinstance(kind, str) else None


def allowed_kinds(sections: tuple[type[Section], ...]) -> str:
    """Return the kinds of a union, for example "sdpo, grpo"."""
    return ", ".join(kind for s in sections for kind in get_args(s.model_fields["kind"].annotation))


def allowed_values(field: FieldInfo) -> str:
    """Return what the key may hold, for example "a number above 0 and below 1, or none"."""
    annotation, rules = bare(field.annotation, field.metadata)
    or_none = ""
    if get_origin(annotation) in (Union, types.UnionType) and type(None) in get_args(annotation):
        annotation, rules = bare(next(part for part in get_args(annotation) if part is not type(None)), rules)
        or_none = ", or none"
    if sections := sections_of(annotation):
        names = dict.fromkeys(name for s in sections for name in s.model_fields)
        return f"a mapping with the keys {', '.join(names)}{or_none}"
    for rule in rules:
        if isinstance(rule, OneOf):
            return ", ".join(rule.names) + or_none
    if get_origin(annotation) is Literal:
        return ", ".join(str(value) for value in get_args(annotation)) + or_none
    if get_origin(annotation) is dict:
        return "a mapping" + or_none
    if get_origin(annotation) in (tuple, list):
        items = get_args(annotation)[0]
        return f"a list of {_PLURALS.get(items, 'values')}, for example {_EXAMPLES.get(items, '[…]')}{or_none}"
    words = _SCALAR_WORDS.get(annotation, str(annotation)) if isinstance(annotation, type) else str(annotation)
    patterns = [f"that matches {rule.pattern}" for rule in rules if getattr(rule, "pattern", None)]
    return " ".join(filter(None, [words, in_words(rules), *patterns])) + or_none


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every value below `values` with its dotted key."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value

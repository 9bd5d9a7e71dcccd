"""From pydantic's validation errors to one line each: the key, its value, what is allowed, the nearest known key."""

import difflib
import json
from typing import Any, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from sdpo.bounds import LARGEST_FREE_NUMBER
from sdpo.config.keys import allowed_kinds, allowed_values, member_of_kind, sections_of, walk_keys
from sdpo.config.plain_yaml import parse_yaml
from sdpo.section import NUMBER_ERROR, PATH_ERROR, Section
from sdpo.show import show

_NUMBER_FOR_TEXT = "numbers, true and false are text in quotes only"


def explain(error: ValidationError, root: type[Section]) -> list[str]:
    """Return one line per error, in pydantic's order."""
    return [_line(details, root) for details in error.errors(include_url=False)]


def nearest_key(name: str, root: type[Section]) -> str | None:
    """Return the most similar known key that is neither `name` nor a section around it.

    A clear typo within the section comes first, then the same last part elsewhere, then whatever is similar.
    """
    names = [n for n in dict.fromkeys(key.name for key in walk_keys(root)) if not f"{name}.".startswith(f"{n}.")]
    section, _, leaf = name.rpartition(".")
    leaves: dict[str, str] = {}
    for known in names:
        leaves.setdefault(_leaf(known), known)
    siblings = {_leaf(known): known for known in names if known.rpartition(".")[0] == section}
    by_name = {known: known for known in names}
    attempts = ((siblings, leaf, 0.8), (leaves, leaf, 1.0), (siblings, leaf, 0.6), (by_name, name, 0.6))
    for candidates, wanted, cutoff in (*attempts, (leaves, leaf, 0.6)):
        if close := difflib.get_close_matches(wanted, candidates, n=1, cutoff=cutoff):
            return candidates[close[0]]
    return None


def _leaf(name: str) -> str:
    return name.rpartition(".")[2]


def _line(details: ErrorDetails, root: type[Section]) -> str:
    """Return name, value and what is allowed. Errors of the run's own validators are complete lines."""
    if details["type"] == "value_error":
        return str(details["ctx"]["error"])
    name, section, field = _locate(details["loc"], root)
    value = _quoted(details["input"])
    if details["type"] == "json_invalid":
        return f"a number cannot be read: {details['ctx']['error']}; allowed: numbers within the bounds of their keys"
    if details["type"] == "extra_forbidden":
        return _unknown_key(name, value, section, root)
    if field is None:
        return f"{show(value)}: allowed: a mapping with the keys {', '.join(root.model_fields)}"
    if details["type"] in ("union_tag_invalid", "union_tag_not_found"):
        kind = value.get("kind") if isinstance(value, dict) else value
        return f"{name}.kind={show(kind)}: allowed: {allowed_kinds(sections_of(field.annotation))}"
    if details["type"] == NUMBER_ERROR:
        key, number = details["ctx"]["key"], details["ctx"]["value"]
        return f"{name}{key}={show(number)}: allowed: numbers from {-LARGEST_FREE_NUMBER} to {LARGEST_FREE_NUMBER}"
    if details["type"] == PATH_ERROR:
        return f"{name}={show(value)}: {details['ctx']['reason']}"
    if details["type"] == "string_type" and isinstance(value, int | float):
        allowed = "a string" if isinstance(details["loc"][-1], int) else allowed_values(field)
        return f"{name}={show(value)}: {_NUMBER_FOR_TEXT}; allowed: {allowed}"
    if details["type"] == "missing":
        return f"{name}: missing; allowed: {allowed_values(field)}"
    return f"{name}={show(value)}: allowed: {allowed_values(field)}"


def _quoted(value: Any) -> Any:
    """Return a text that reads like another type ("8", "true") in quotes; any other value as it is."""
    return json.dumps(value) if isinstance(value, str) and not isinstance(_read(value), str) else value


def _read(text: str) -> Any:
    try:
        return parse_yaml(text)
    except ValueError:
        return text


def _unknown_key(name: str, value: Any, section: type[Section], root: type[Section]) -> str:
    """Return the line for a key that `section` does not have; another kind of the section may have it."""
    start = f"{name}={show(value)}: unknown key"
    if any(key.name == name for key in walk_keys(root)):
        return f"{start} for this kind; allowed: {', '.join(section.model_fields)}"
    near = nearest_key(name, root)
    return f"{start}; nearest known key: {near}" if near else f"{start}; allowed: {', '.join(section.model_fields)}"


def _locate(loc: tuple[int | str, ...], root: type[Section]) -> tuple[str, type[Section], FieldInfo | None]:
    """Return the dotted name of pydantic's location (which holds kinds of unions, too), its section and its field."""
    sections: tuple[type[Section], ...] = (root,)
    section, field = root, None
    parts: list[str] = []
    for element in map(str, loc):
        if len(sections) > 1 and (member := member_of_kind(sections, element)) is not None:
            sections = (member,)
            continue
        parts.append(element)
        if not sections:
            if field is not None and get_origin(field.annotation) is dict:
                field = FieldInfo.from_annotation(get_args(field.annotation)[1])
            continue
        section = sections[0]
        field = section.model_fields.get(element)
        sections = sections_of(field.annotation) if field else ()
    return ".".join(parts), section, field

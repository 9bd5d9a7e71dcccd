"""Tools of BFCL as JSON schemas."""

from collections.abc import Mapping
from typing import Any

from env_workers.adapters.fields import bad_field
from sdpo.show import show

TYPES = {
    **dict.fromkeys(("string", "String", "char", "any", "Any"), "string"),
    **dict.fromkeys(("integer", "byte", "short", "long", "Bigint"), "integer"),
    **dict.fromkeys(("number", "float", "double"), "number"),
    **dict.fromkeys(("boolean", "Boolean", "bool"), "boolean"),
    **dict.fromkeys(("array", "tuple", "list", "Array", "ArrayList", "Queue", "Stack", "Set"), "array"),
    **dict.fromkeys(("dict", "object", "HashMap", "Hashtable"), "object"),
}
"""BFCL's name of a type, of Python, Java or JavaScript -> the one of JSON schemas. Values of any type are texts."""
_COPIED = ("description", "enum", "default", "format", "minimum", "maximum", "required")


class Unsupported(Exception):
    """A record that cannot be a task; the message says why."""


def tool_of(where: str, function: Any) -> dict[str, Any]:
    """Return {name, description, parameters}. Raises TaskFileError, and Unsupported for an unknown type."""
    name = function.get("name") if isinstance(function, Mapping) else None
    if not isinstance(name, str) or not isinstance(function.get("parameters"), Mapping):
        raise bad_field(where, "function", function, "{name, description, parameters}")
    described = {"description": function["description"]} if isinstance(function.get("description"), str) else {}
    return {"name": name, **described, "parameters": schema_of(function["parameters"])}


def schema_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return a JSON schema of BFCL's description of a value. Raises Unsupported for an unknown type."""
    schema: dict[str, Any] = {}
    if "type" in given:
        if given["type"] not in TYPES:
            raise Unsupported(f"its tools have the unknown type {show(given['type'])}")
        schema["type"] = TYPES[given["type"]]
    schema |= {key: given[key] for key in _COPIED if key in given}
    if isinstance(given.get("properties"), Mapping):
        schema["properties"] = {name: schema_of(inner) for name, inner in given["properties"].items()}
    for key in ("items", "additionalProperties"):
        if isinstance(given.get(key), Mapping):
            schema[key] = schema_of(given[key])
    return schema

"""JSON schemas (draft 2020-12): whether one is sound, and what is wrong with a value, in words without values."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError
from referencing import Registry

from env_workers.wording import quote, words

_TYPES = {
    "string": "a string",
    "integer": "an integer",
    "number": "a number",
    "boolean": "true or false",
    "array": "an array",
    "object": "an object",
    "null": "null",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that is wrong; `kind` is for `Verdict.details`.

    The text is a clause without its full stop: `the argument 'city' is missing`.
    """

    kind: str
    text: str


def complaint_about(schema: Any) -> str | None:
    """Return why `schema` is not one for named arguments (an object's), on one line; None when it is."""
    if not isinstance(schema, Mapping) or schema.get("type", "object") != "object":
        return "a JSON schema of type object"
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        return f"a JSON schema; {error.json_path}: {error.message:.100}"
    for reference in _references(schema):
        if reference.removeprefix("#/$defs/") not in schema.get("$defs", {}):
            return f"a JSON schema whose references are #/$defs/NAME, which it holds; not {reference:.60}"
    return None


def faults_of(schema: Mapping[str, Any], arguments: Any, root: str = "") -> list[Fault]:
    """Return how `arguments` break `schema`, in a fixed order. Names are of the schema or of the arguments.

    `root` names the argument where `schema` is that of a single one.
    """
    validator = Draft202012Validator(schema, registry=Registry())
    errors = sorted(validator.iter_errors(arguments), key=lambda error: (error.json_path, str(error.validator)))
    return list(dict.fromkeys(fault for error in errors for fault in _faults(error, root)))


def type_name(value: Any) -> str:
    """Return what `value` is, as JSON: `a string`."""
    for kind, name in ((bool, "boolean"), (str, "string"), (int, "integer"), (float, "number"), (list, "array")):
        if isinstance(value, kind):
            return "a boolean" if name == "boolean" else _TYPES[name]
    return _TYPES["null"] if value is None else _TYPES["object"]


def path_name(path: list[str | int]) -> str:
    """Return `the argument 'filters.tags[1]'` for ["filters", "tags", 1]."""
    name = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).lstrip(".")
    return f"the argument {quote(name)}" if name else "the whole of the arguments"


def _references(schema: Any) -> Iterator[str]:
    items = schema.items() if isinstance(schema, Mapping) else enumerate(schema) if isinstance(schema, list) else ()
    for key, value in items:
        if key in ("$ref", "$dynamicRef") and isinstance(value, str):
            yield value
        yield from _references(value)


def _faults(error: Any, root: str) -> list[Fault]:
    path = [*([root] if root else []), *error.absolute_path]
    where = path_name(path)
    if error.validator == "required":
        missing = [name for name in error.validator_value if name not in error.instance]
        return [Fault(kind="missing_argument", text=f"{path_name([*path, name])} is missing") for name in missing]
    if error.validator == "additionalProperties" and isinstance(error.instance, dict):
        known = set(error.schema.get("properties", {}))
        extra = [name for name in error.instance if name not in known]
        return [Fault(kind="extra_argument", text=f"{path_name([*path, name])} does not exist") for name in extra]
    if error.validator == "type":
        allowed = error.validator_value if isinstance(error.validator_value, list) else [error.validator_value]
        types = words([_TYPES[name] for name in allowed], "or")
        return [Fault(kind="wrong_type", text=f"{where} must be {types}, not {type_name(error.instance)}")]
    if error.validator in ("enum", "const"):
        return [Fault(kind="wrong_value", text=f"{where} is not one of the values that its documentation allows")]
    return [Fault(kind="wrong_value", text=f"{where} breaks the rule {error.validator} of its documentation")]

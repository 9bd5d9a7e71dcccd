"""Answers of BFCL as expected calls.

Each argument has a list of accepted values, in which "" says that the argument may be left out. An accepted object
has such a list for each of its keys. An argument that the tool requires may never be left out.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from env_workers.adapters.bfcl_schemas import Unsupported
from env_workers.adapters.fields import bad_field
from sdpo.show import show

__all__ = ["Unsupported", "expected_calls"]

OMITTED = ""
_ANSWER = "calls, each {name: {argument: [accepted values]}}"


def expected_calls(where: str, answer: Sequence[Any], schemas: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return `expected` of a payload; `schemas`: tool name -> schema of its arguments. Raises Unsupported."""
    return [_call(name, given, schemas) for call in answer for name, given in _pairs(where, call)]


def _pairs(where: str, call: Any) -> Iterable[tuple[str, Mapping[str, Any]]]:
    if not isinstance(call, Mapping) or len(call) != 1 or not all(isinstance(v, Mapping) for v in call.values()):
        raise bad_field(where, "ground_truth", call, _ANSWER)
    return call.items()


def _call(name: str, given: Mapping[str, Any], schemas: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    if name not in schemas:
        raise Unsupported(f"its answer calls {show(name)}, which is none of its tools")
    documented, required = schemas[name].get("properties", {}), schemas[name].get("required", [])
    missing = [argument for argument in required if argument not in given]
    if missing:
        raise Unsupported(f"its answer lacks the required argument {show(missing[0])}")
    arguments, optional = {}, []
    for argument, values in given.items():
        may_be_left_out = OMITTED in _listed(argument, values) and argument not in required
        forms = _forms(argument, values, documented[argument]) if argument in documented else []
        if forms:
            arguments[argument] = {"any_of": forms}
            optional += [argument] if may_be_left_out else []
        elif not may_be_left_out:  # the model could not give it, and may not leave it out
            raise Unsupported(f"its answer accepts no value of the argument {show(argument)}")
    return {"name": name, "arguments": arguments, "optional_arguments": optional}


def _forms(argument: str, values: Any, schema: Mapping[str, Any]) -> list[Any]:
    """Return the forms of an argument's accepted values."""
    return [_form(argument, value, schema) for value in _accepted(argument, values, schema)]


def _form(argument: str, value: Any, schema: Mapping[str, Any]) -> Any:
    if isinstance(value, Mapping):
        return _object(argument, value, schema)
    items = schema.get("items", {})
    if isinstance(value, list) and items.get("type") == "object":
        return {"list_of": [_form(argument, item, items) for item in value]}
    return _literal(value, schema)


def _object(argument: str, value: Mapping[str, Any], schema: Mapping[str, Any]) -> Any:
    forms = {}
    for key, listed in value.items():
        inner = schema.get("properties", {}).get(key, {})
        forms[key] = {"any_of": [_literal(item, inner) for item in _accepted(argument, listed, inner)]}
        if not forms[key]["any_of"]:
            raise Unsupported(f"its answer accepts no value of the key {show(key)} of the argument {show(argument)}")
    return {"object_of": forms, "optional": [key for key, listed in value.items() if OMITTED in listed]}


def _accepted(argument: str, values: Any, schema: Mapping[str, Any]) -> list[Any]:
    """Return the values of a list of accepted ones; "" is one of them where texts are expected."""
    listed = _listed(argument, values)
    others = [value for value in listed if value != OMITTED]
    is_text = schema.get("type") == "string" if "type" in schema else all(isinstance(v, str) for v in others)
    return listed if is_text else others


def _literal(value: Any, schema: Mapping[str, Any]) -> Any:
    """Return the form of a value as it stands."""
    pointed = _pointed(value, schema)
    return {"exactly": pointed} if isinstance(value, list | Mapping) else pointed


def _pointed(value: Any, schema: Mapping[str, Any]) -> Any:
    """Return `value` with a float for each integer where `schema` allows numbers with a point."""
    if isinstance(value, list):
        return [_pointed(item, schema.get("items", {})) for item in value]
    if isinstance(value, Mapping):
        return {key: _pointed(inner, schema.get("properties", {}).get(key, {})) for key, inner in value.items()}
    return float(value) if type(value) is int and schema.get("type") == "number" else value


def _listed(argument: str, values: Any) -> list[Any]:
    if not isinstance(values, list):
        raise Unsupported(f"its answer has no list of accepted values for the argument {show(argument)}")
    return values

"""Answers made of a record of BFCL: the right ones, and wrong ones that differ from a right one in one place.

They are made of the published record alone, without the adapter.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Record = Mapping[str, Any]
Call = dict[str, Any]
LOOSE = str.maketrans("'", '"', " ,./-_*^")


def gold(record: Record) -> list[Call]:
    """Return the calls with the first accepted value of every argument; "" alone leaves the argument out."""
    return [
        {"name": name, "arguments": {k: _first(v) for k, v in given.items() if _is_given(record, name, k, v)}}
        for call in record["ground_truth"]
        for name, given in call.items()
    ]


def alternatives(record: Record) -> Iterator[list[Call]]:
    """Yield gold answers with another accepted value in one place, or without one optional argument."""
    for index, argument, values in _places(record):
        for value in values:
            if value == "" and argument not in _required(record, _name(record, index)):
                yield _changed(record, index, argument)
            elif value != "":
                yield _changed(record, index, argument, _plain(value))


def changes(record: Record) -> Iterator[list[Call]]:
    """Yield wrong answers, each with one change of the gold answer."""
    calls = gold(record)
    for index, argument, values in _places(record):
        if argument in calls[index]["arguments"]:
            value = calls[index]["arguments"][argument]
            schema = _function(record, _name(record, index))["parameters"]["properties"][argument]
            yield from (_changed(record, index, argument, new) for new in _others(value, values, schema))
            if "" not in values or argument in _required(record, _name(record, index)):
                yield _changed(record, index, argument)
    for index, call in enumerate(calls):
        others = calls[:index] + calls[index + 1 :]
        yield _changed(record, index, "no_such_argument", 1)
        yield [*others, {**call, "name": call["name"] + "x"}]
        yield [*calls, call]
        if others:
            yield others
    if not calls:
        yield [{"name": record["function"][0]["name"], "arguments": {}}]


def _places(record: Record) -> Iterator[tuple[int, str, list[Any]]]:
    for index, call in enumerate(record["ground_truth"]):
        for name, given in call.items():
            documented = _function(record, name)["parameters"]["properties"]
            yield from ((index, argument, values) for argument, values in given.items() if argument in documented)


def _others(value: Any, accepted: Sequence[Any], schema: Mapping[str, Any]) -> Iterator[Any]:
    """Yield values that differ from `value` in one place and are not accepted."""
    for new in _variants(value, schema):
        if not any(_accepts(wanted, new) for wanted in accepted):
            yield new


def _variants(value: Any, schema: Mapping[str, Any]) -> Iterator[Any]:
    """Yield changes of `value`; a number with a point for an integer only where an integer is documented."""
    if isinstance(value, bool):
        yield from (not value, int(value), str(value).lower())
    elif isinstance(value, int | float):
        yield from (2 * value + 1, -value - 1, str(value), [value])
        if type(value) is int and schema.get("type") == "integer":
            yield from (float(value), value + 0.5)
    elif isinstance(value, str):
        yield from (value + "x", "x" + value, value[1:], [value], 17)
    elif isinstance(value, list):
        yield from (value[:-1], [*value, *(value[:1] or [1])], value[::-1])
        for index, item in enumerate(value):
            items = _variants(item, schema.get("items", {}))
            yield from ([*value[:index], new, *value[index + 1 :]] for new in items)
    elif isinstance(value, dict):
        yield {**value, "no_such_key": 1}
        for key, inner in value.items():
            yield {k: v for k, v in value.items() if k != key}
            inner_schema = schema.get("properties", {}).get(key, {})
            yield from ({**value, key: new} for new in _variants(inner, inner_schema))
    yield {"value": value}
    if value is not None:
        yield None


def _accepts(wanted: Any, given: Any) -> bool:
    """Whether an accepted value of a record accepts a variant, as far as the variants of this module go."""
    if isinstance(wanted, str) and isinstance(given, str):
        return wanted.translate(LOOSE).lower() == given.translate(LOOSE).lower()
    if isinstance(wanted, list) and isinstance(given, list):
        return len(wanted) == len(given) and all(map(_accepts, wanted, given))
    if isinstance(wanted, dict) and isinstance(given, dict):
        return _accepts_object(wanted, given)
    if isinstance(wanted, bool) or isinstance(given, bool):
        return wanted is given
    if isinstance(wanted, int) and isinstance(given, float):
        return False
    return type(wanted) in (int, float, type(None)) and wanted == given


def _accepts_object(wanted: Mapping[str, Any], given: Mapping[str, Any]) -> bool:
    listed = {key: values if isinstance(values, list) else [values] for key, values in wanted.items()}
    if not all(key in listed and any(_accepts(one, value) for one in listed[key]) for key, value in given.items()):
        return False
    return all(key in given or "" in values for key, values in listed.items())


def _changed(record: Record, index: int, argument: str, *value: Any) -> list[Call]:
    """Return the gold answer with another value of one argument, or without it."""
    calls = copy.deepcopy(gold(record))
    calls[index]["arguments"].pop(argument, None)
    if value:
        calls[index]["arguments"][argument] = value[0]
    return calls


def _first(values: Sequence[Any]) -> Any:
    return _plain(next((value for value in values if value != ""), ""))


def _plain(value: Any) -> Any:
    """Return an accepted value with the first accepted value of each key of its objects."""
    if isinstance(value, dict):
        return {k: _first(v) if isinstance(v, list) else v for k, v in value.items() if v != [""]}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _is_given(record: Record, name: str, argument: str, values: Sequence[Any]) -> bool:
    function = _function(record, name)["parameters"]
    return argument in function["properties"] and (list(values) != [""] or argument in _required(record, name))


def _name(record: Record, index: int) -> str:
    return str(next(iter(record["ground_truth"][index])))


def _required(record: Record, name: str) -> Sequence[str]:
    required: Sequence[str] = _function(record, name)["parameters"].get("required", [])
    return required


def _function(record: Record, name: str) -> Mapping[str, Any]:
    return next(function for function in record["function"] if function["name"] == name)

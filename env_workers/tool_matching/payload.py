"""The payload of a tool-matching task.

`tools`: a list of {name, description, parameters}, parameters a JSON schema; `expected`: the calls that answer the
question, a list of {name, arguments, optional}; `notation`: json (the default) or react; `ordered`: whether the calls
must come in the order of `expected`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from env_workers.calling.schema import complaint_about
from env_workers.payloads import flag_at, list_at, only_keys, refuse, text_at
from sdpo.errors import TaskFileError
from sdpo.types import Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """A call that is wanted; an optional one may also be left out."""

    name: str
    arguments: dict[str, Any]
    optional: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Matching:
    """`schemas`: tool name -> JSON schema of its arguments."""

    notation: Literal["json", "react"]
    schemas: Mapping[str, Mapping[str, Any]]
    expected: tuple[Expected, ...]
    ordered: bool


def parse_matching(task: Task) -> Matching:
    """Reads `task.payload`; raises TaskFileError that names the task and the key."""
    payload = only_keys(task, task.payload, ("tools", "expected", "notation", "ordered"))
    notation = payload.get("notation", "json")
    if notation not in ("json", "react"):
        raise refuse(task, "notation", notation, "json, react")
    expected = list_at(task, payload, "expected", empty=True)
    return Matching(
        notation=notation,
        schemas=parse_tool_schemas(task, list_at(task, payload, "tools")),
        expected=tuple(_expected(task, i, call) for i, call in enumerate(expected)),
        ordered=flag_at(task, payload, "ordered"),
    )


def parse_tool_schemas(
    task: Task, tools: list[Any], keys: tuple[str, ...] = ("name", "description", "parameters")
) -> dict[str, Mapping[str, Any]]:
    """Tool name -> schema of its arguments, of the payload's `tools`; each tool may have `keys` only."""
    schemas: dict[str, Mapping[str, Any]] = {}
    for index, item in enumerate(tools):
        key = f"tools[{index}]"
        tool = only_keys(task, item, keys, key)
        name, schema = text_at(task, tool, "name", key), tool.get("parameters", {})
        complaint = complaint_about(schema)
        if complaint is not None:
            raise refuse(task, f"{key}.parameters", schema, complaint)
        if name in schemas:
            raise TaskFileError(f"task {task.id}: payload.tools names {name} twice; allowed: different names")
        schemas[name] = schema
    return schemas


def _expected(task: Task, index: int, item: Any) -> Expected:
    key = f"expected[{index}]"
    call = only_keys(task, item, ("name", "arguments", "optional"), key)
    arguments = call.get("arguments")
    if not isinstance(arguments, Mapping):
        raise refuse(task, f"{key}.arguments", arguments, "a mapping of argument names to JSON values")
    optional = flag_at(task, call, "optional", key)
    return Expected(name=text_at(task, call, "name", key), arguments=dict(arguments), optional=optional)

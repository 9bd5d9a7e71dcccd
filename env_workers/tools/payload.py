"""The payload of tasks whose calls are matched, and the schemas of tools.

`tools`, a list of {name, description, parameters}, parameters a JSON schema; `expected`, the calls that
answer the question, a list of {name, arguments, optional, optional_arguments}, where each argument is an accepted form
(`env_workers.tools.forms`), and `optional_arguments` names those that may be left out; `strings` and `numbers`, how
values are compared (`Comparison`); `notation`: json (the default) or react; `ordered`: whether the calls must come in
the order of `expected`.

Where the task itself has `tools`, which the chat template shows, the payload has none.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from env_workers.payloads import choice_at, flag_at, list_at, only_keys, refuse, text_at
from env_workers.tools.forms import BadForm, Comparison, Form, read_form
from env_workers.tools.schema import complaint_about
from sdpo.errors import TaskFileError
from sdpo.show import show
from sdpo.types import Task

_COMPARISON = {"strings": ("exact", "loose"), "numbers": ("equal", "typed")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """A call that is wanted; an optional one may also be left out.

    `arguments` are the accepted forms of each argument; those in `optional_arguments` may also be left out.
    """

    name: str
    arguments: Mapping[str, Form]
    optional: bool = False
    optional_arguments: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Matching:
    """`schemas`: tool name -> JSON schema of its arguments."""

    notation: Literal["json", "react"]
    schemas: Mapping[str, Mapping[str, Any]]
    expected: tuple[Expected, ...]
    ordered: bool
    comparison: Comparison


def parse_matching(task: Task) -> Matching:
    """Read `task.payload`; raises TaskFileError that names the task and the key."""
    payload = only_keys(task, task.payload, ("tools", "expected", "notation", "ordered", "strings", "numbers"))
    notation = choice_at(task, payload, "notation", ("json", "react"))
    strings, numbers = (choice_at(task, payload, key, allowed) for key, allowed in _COMPARISON.items())
    expected = list_at(task, payload, "expected", empty=True)
    if task.tools and "tools" in payload:
        raise refuse(task, "tools", payload["tools"], "nothing, since the task has tools")
    return Matching(
        notation=notation,
        schemas=shown_schemas(task) if task.tools else parse_tool_schemas(task, list_at(task, payload, "tools")),
        expected=tuple(_expected(task, i, call) for i, call in enumerate(expected)),
        ordered=flag_at(task, payload, "ordered"),
        comparison=Comparison(strings=strings, numbers=numbers),
    )


def shown_schemas(task: Task) -> dict[str, Mapping[str, Any]]:
    """Return tool name -> schema of its arguments, of the tools that the chat template is given."""
    schemas = {tool["function"]["name"]: tool["function"].get("parameters", {}) for tool in task.tools}
    for index, (name, schema) in enumerate(schemas.items()):
        complaint = complaint_about(schema)
        if complaint is not None:
            raise TaskFileError(
                f"task {task.id}: tools[{index}].function.parameters of {name} is {show(schema)}; allowed: {complaint}"
            )
    return schemas


def parse_tool_schemas(
    task: Task, tools: list[Any], keys: tuple[str, ...] = ("name", "description", "parameters")
) -> dict[str, Mapping[str, Any]]:
    """Return tool name -> schema of its arguments, of the payload's `tools`; each tool may have `keys` only."""
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
    call = only_keys(task, item, ("name", "arguments", "optional", "optional_arguments"), key)
    arguments = call.get("arguments")
    if not isinstance(arguments, Mapping):
        raise refuse(task, f"{key}.arguments", arguments, "a mapping of argument names to JSON values")
    names = call.get("optional_arguments", ())
    if not isinstance(names, list | tuple) or not all(isinstance(n, str) and n in arguments for n in names):
        raise refuse(task, f"{key}.optional_arguments", names, f"a list of names of {key}.arguments")
    return Expected(
        name=text_at(task, call, "name", key),
        arguments={name: _form(task, f"{key}.arguments.{name}", value) for name, value in arguments.items()},
        optional=flag_at(task, call, "optional", key),
        optional_arguments=frozenset(names),
    )


def _form(task: Task, key: str, value: Any) -> Form:
    try:
        return read_form(value, key)
    except BadForm as error:
        raise refuse(task, error.path, error.value, error.allowed) from None

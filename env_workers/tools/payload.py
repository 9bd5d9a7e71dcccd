"""The payloads of tasks with tools, of both kinds.

Matching: `tools`, a list of {name, description, parameters}, parameters a JSON schema; `expected`, the calls that
answer the question, a list of {name, arguments, optional, optional_arguments}, where each argument is an accepted form
(`env_workers.tools.forms`), and `optional_arguments` names those that may be left out; `strings` and `numbers`, how
values are compared (`Comparison`); `notation`: json (the default) or react; `ordered`: whether the calls must come in
the order of `expected`.

Where the task itself has `tools`, which the chat template shows, they hold descriptions and parameters: there is no
`tools` in the payload of matching, and only {name, source} in that of tools that run.

Tools that run: `tools`, whose items have in addition `source`, Python that defines a function of that name; `setup`,
Python that all of them may use; `answer`, how the final answer is judged, one of {kind: exact, value}, {kind: number,
value, tolerance}, {kind: pattern, pattern}, {kind: check, source}; `time_limit_s`, wall time of one call.
"""

import ast
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from env_workers.payloads import choice_at, flag_at, list_at, number_at, only_keys, refuse, seconds_at, text_at
from env_workers.tools.forms import BadForm, Comparison, Form, read_form
from env_workers.tools.schema import complaint_about
from sdpo.errors import TaskFileError
from sdpo.show import show
from sdpo.types import Task

CHECK = "check"
_COMPARISON = {"strings": ("exact", "loose"), "numbers": ("equal", "typed")}
_TOOL_KEYS = ("name", "description", "parameters", "source")
_KEYS = {"exact": "value", "number": "value", "pattern": "pattern", "check": "source"}


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """`text` is the value, the pattern or the source of `check(answer, calls)`, as `kind` says."""

    kind: Literal["exact", "number", "pattern", "check"]
    text: str = ""
    number: float = 0.0
    tolerance: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Toolbox:
    """`parts` are (key, Python) of the setup and of all tools; `schemas`: tool name -> JSON schema of its arguments."""

    task_id: str
    parts: tuple[tuple[str, str], ...]
    schemas: Mapping[str, Mapping[str, Any]]
    answer: Answer
    time_limit_s: float | None

    @property
    def source(self) -> str:
        """The Python of all tools, as one program; one empty line lies between two parts."""
        return "\n\n".join(text for _, text in self.parts)


def parse_toolbox(task: Task) -> Toolbox:
    """Read `task.payload`; raises TaskFileError that names the task and the key."""
    payload = only_keys(task, task.payload, ("tools", "setup", "answer", "time_limit_s"))
    tools = list_at(task, payload, "tools")
    schemas = parse_tool_schemas(task, tools, ("name", "source") if task.tools else _TOOL_KEYS)
    if task.tools:
        shown = shown_schemas(task)
        if shown.keys() != schemas.keys():
            raise refuse(task, "tools", sorted(schemas), f"one with a source for each of the task's: {sorted(shown)}")
        schemas = shown
    keys = [f"tools[{index}]" for index in range(len(tools))]
    parts = [(f"{k}.source", _source(task, tool, k, tool["name"])) for k, tool in zip(keys, tools, strict=True)]
    if payload.get("setup") is not None:
        parts.insert(0, ("setup", _source(task, payload, "", None, name="setup")))
    answer, time_limit_s = _answer(task, payload), seconds_at(task, payload)
    return Toolbox(task_id=task.id, parts=tuple(parts), schemas=schemas, answer=answer, time_limit_s=time_limit_s)


def _source(task: Task, mapping: Mapping[str, Any], key: str, function: str | None, name: str = "source") -> str:
    """Return Python that compiles and, where `function` is given, defines it at its top level."""
    text, where = text_at(task, mapping, name, key), f"{key}.{name}" if key else name
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError) as error:
        raise TaskFileError(f"task {task.id}: payload.{where} is no Python: {error}") from None
    defined = [statement.name for statement in tree.body if isinstance(statement, ast.FunctionDef)]
    if function is not None and function not in defined:
        raise refuse(task, where, text, f"Python that defines the function {function}")
    return text


def _answer(task: Task, payload: Mapping[str, Any]) -> Answer:
    given = only_keys(task, payload.get("answer"), ("kind", "value", "tolerance", "pattern", "source"), "answer")
    kind = given.get("kind")
    if not isinstance(kind, str) or kind not in _KEYS:
        raise refuse(task, "answer.kind", kind, ", ".join(_KEYS))
    only_keys(task, given, ("kind", _KEYS[kind], *(["tolerance"] if kind == "number" else [])), "answer")
    if kind == "number":
        value: Any = given.get("value")
        if type(value) not in (int, float) or not abs(value) <= sys.float_info.max:
            raise refuse(task, "answer.value", value, "a finite number")
        return Answer(kind="number", number=value, tolerance=number_at(task, given, "tolerance", 1e-6, "answer"))
    if kind == "check":
        return Answer(kind="check", text=_source(task, given, "answer", CHECK))
    text = text_at(task, given, _KEYS[kind], "answer")
    if kind == "pattern":
        try:
            re.compile(text)
        except re.error as error:
            raise refuse(task, "answer.pattern", text, f"a regular expression; {error}") from None
        return Answer(kind="pattern", text=text)
    return Answer(kind="exact", text=text)

"""The payload of a task with tools that run.

`tools`: a list of {name, description, parameters, source}: parameters a JSON schema, source Python that defines a
function of that name; `setup`: Python that all of them may use; `answer`: how the final answer is judged, one of
{kind: exact, value}, {kind: number, value, tolerance}, {kind: pattern, pattern}, {kind: check, source};
`time_limit_s`: wall time of one call.
"""

import ast
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from env_workers.payloads import list_at, number_at, only_keys, refuse, text_at
from env_workers.tool_matching.payload import parse_tool_schemas
from sdpo.errors import TaskFileError
from sdpo.types import Task

CHECK = "check"
_TOOL_KEYS = ("name", "description", "parameters", "source")
_KEYS = {"exact": "value", "number": "value", "pattern": "pattern", "check": "source"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """`text` is the value, the pattern or the source of `check(answer, calls)`, as `kind` says."""

    kind: Literal["exact", "number", "pattern", "check"]
    text: str = ""
    number: float = 0.0
    tolerance: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Toolbox:
    """`source` is the Python of all tools; `schemas`: tool name -> JSON schema of its arguments."""

    source: str
    schemas: Mapping[str, Mapping[str, Any]]
    answer: Answer
    time_limit_s: float | None


def parse_toolbox(task: Task) -> Toolbox:
    """Reads `task.payload`; raises TaskFileError that names the task and the key."""
    payload = only_keys(task, task.payload, ("tools", "setup", "answer", "time_limit_s"))
    tools = list_at(task, payload, "tools")
    schemas = parse_tool_schemas(task, tools, _TOOL_KEYS)
    sources = [_source(task, tool, f"tools[{index}]", tool["name"]) for index, tool in enumerate(tools)]
    if payload.get("setup") is not None:
        sources.insert(0, _source(task, payload, "", None, name="setup"))
    time_limit_s = payload.get("time_limit_s")
    if time_limit_s is not None and not number_at(task, payload, "time_limit_s", 0.0):
        raise refuse(task, "time_limit_s", time_limit_s, "a number of seconds above 0")
    return Toolbox(
        source="\n\n".join(sources), schemas=schemas, answer=_answer(task, payload), time_limit_s=time_limit_s
    )


def _source(task: Task, mapping: Mapping[str, Any], key: str, function: str | None, name: str = "source") -> str:
    """Python that compiles and, where `function` is given, defines it at its top level."""
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
        if type(value) not in (int, float) or not math.isfinite(value):
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

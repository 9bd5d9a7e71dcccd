"""The payload of tasks whose tools run.

`tools`, a list of {name, description, parameters, source}: parameters a JSON schema, source Python that defines a
function of that name; only {name, source} where the task itself has `tools`, which the chat template shows. `setup`,
Python that all of them may use; `answer`, how the final answer is judged, one of {kind: exact, value}, {kind: number,
value, tolerance}, {kind: pattern, pattern}, {kind: check, source, sees_state}; `user_turns`, what the user says later,
each when the model ends a turn without a call; `time_limit_s`, wall time of one call.
"""

import ast
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from env_workers.payloads import flag_at, is_texts, list_at, number_at, only_keys, refuse, seconds_at, text_at
from env_workers.tools.payload import parse_tool_schemas, shown_schemas
from sdpo.errors import TaskFileError
from sdpo.types import Task

CHECK = "check"
_TOOL_KEYS = ("name", "description", "parameters", "source")
_KEYS = {"exact": "value", "number": "value", "pattern": "pattern", "check": "source"}
_MORE_KEYS = {"number": "tolerance", "check": "sees_state"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """`text` is the value, the pattern or the source of `check(answer, calls)`, as `kind` says.

    `sees_state`: the check runs where the calls ran, after them, and the names of setup and tools are its own.
    """

    kind: Literal["exact", "number", "pattern", "check"]
    text: str = ""
    number: float = 0.0
    tolerance: float = 0.0
    sees_state: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Toolbox:
    """`parts` are (key, Python) of the setup and of all tools; `schemas`: tool name -> JSON schema of its arguments."""

    task_id: str
    parts: tuple[tuple[str, str], ...]
    schemas: Mapping[str, Mapping[str, Any]]
    answer: Answer
    time_limit_s: float | None
    user_turns: tuple[str, ...] = ()

    @property
    def source(self) -> str:
        """The Python of all tools, as one program; one empty line lies between two parts."""
        return joined(self.parts)

    @property
    def check_parts(self) -> tuple[tuple[str, str], ...]:
        """(key, Python) of the program that holds the check: its own source, behind the tools' where it sees state."""
        own = (("answer.source", self.answer.text),)
        return (*self.parts, *own) if self.answer.sees_state else own


def joined(parts: Sequence[tuple[str, str]]) -> str:
    """Return parts as one program; one empty line lies between two of them."""
    return "\n\n".join(text for _, text in parts)


def parse_toolbox(task: Task) -> Toolbox:
    """Read `task.payload`; raises TaskFileError that names the task and the key."""
    payload = only_keys(task, task.payload, ("tools", "setup", "answer", "time_limit_s", "user_turns"))
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
    answer = _answer(task, payload)
    if answer.sees_state and CHECK in schemas:
        raise refuse(
            task, "tools", CHECK, f"another name of a tool, since the check sees the state and is {CHECK}, too"
        )
    return Toolbox(
        task_id=task.id,
        parts=tuple(parts),
        schemas=schemas,
        answer=answer,
        time_limit_s=seconds_at(task, payload),
        user_turns=_user_turns(task, payload),
    )


def _user_turns(task: Task, payload: Mapping[str, Any]) -> tuple[str, ...]:
    turns = payload.get("user_turns", ())
    if not is_texts(turns) or not all(turn.strip() for turn in turns):
        raise refuse(task, "user_turns", turns, "a list of strings that are not blank")
    return tuple(turns)


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
    given = only_keys(task, payload.get("answer"), ("kind", *_KEYS.values(), *_MORE_KEYS.values()), "answer")
    kind = given.get("kind")
    if not isinstance(kind, str) or kind not in _KEYS:
        raise refuse(task, "answer.kind", kind, ", ".join(_KEYS))
    only_keys(task, given, ("kind", _KEYS[kind], *([_MORE_KEYS[kind]] if kind in _MORE_KEYS else [])), "answer")
    if kind == "number":
        value: Any = given.get("value")
        if type(value) not in (int, float) or not abs(value) <= sys.float_info.max:
            raise refuse(task, "answer.value", value, "a finite number")
        return Answer(kind="number", number=value, tolerance=number_at(task, given, "tolerance", 1e-6, "answer"))
    if kind == "check":
        sees_state = flag_at(task, given, "sees_state", "answer")
        return Answer(kind="check", text=_source(task, given, "answer", CHECK), sees_state=sees_state)
    text = text_at(task, given, _KEYS[kind], "answer")
    if kind == "pattern":
        try:
            re.compile(text)
        except re.error as error:
            raise refuse(task, "answer.pattern", text, f"a regular expression; {error}") from None
        return Answer(kind="pattern", text=text)
    return Answer(kind="exact", text=text)

"""ToolAlpaca, in the form in which the SDPO paper's authors use it: tools and question in one ReAct prompt.

A record: `prompt`; `answer`, a JSON list of {"Action": name, "Action_Input": JSON text}; optional `system`. An action
whose name starts with [Optional] may be left out.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from env_workers.adapters import Purpose
from env_workers.adapters.fields import Options, bad_field, numbered, text_field
from env_workers.adapters.records import read_records
from sdpo.records import NotJsonError, read_json
from sdpo.types import Message, Task

_TOOL = re.compile(r"^(\S+): .*\nParameters: (\{.*\})$", re.MULTILINE)
_TYPE = re.compile(r"(?:Required\. )?(string|integer|number|boolean|Array|Object)\b", re.IGNORECASE)
_ENUM = re.compile(r"One of: \[([^\[\]]*)\]")
_OPTIONAL = "[Optional]"
_ANSWER = "JSON text: a list of {Action, Action_Input}, Action_Input the JSON text of an object"


def toolalpaca(path: str, purpose: Purpose, options: Mapping[str, Any]) -> Iterator[Task]:
    """Yield one task a record, its prompt as it is; each tool's documentation in the prompt becomes a JSON schema."""
    Options("toolalpaca", options)
    for number, (where, record) in enumerate(read_records(path, options), start=1):
        prompt = text_field(where, record, "prompt")
        tools = _tools(prompt)
        if not tools:
            raise bad_field(where, "prompt", prompt, "tools documented as `NAME: ...` and `Parameters: {...}`")
        system = record.get("system")
        messages = (Message(role="system", content=system),) if isinstance(system, str) and system.strip() else ()
        yield Task(
            id=numbered("toolalpaca", purpose, number),
            messages=(*messages, Message(role="user", content=prompt)),
            environment="tool_matching",
            payload={"notation": "react", "tools": tools, "expected": _expected(where, record)},
        )


def _tools(prompt: str) -> list[dict[str, Any]]:
    tools = {}
    for name, text in _TOOL.findall(prompt):
        try:
            parameters = read_json(text)
        except NotJsonError:
            continue
        tools[name] = {"name": name, "parameters": _schema(parameters)}
    return list(tools.values())


def _schema(parameters: Mapping[str, Any]) -> dict[str, Any]:
    required = [name for name, text in parameters.items() if str(text).startswith("Required")]
    return {"type": "object", "properties": {n: _property(str(t)) for n, t in parameters.items()}, "required": required}


def _property(text: str) -> dict[str, Any]:
    """Read `Required. string. One of: [sms, email]. The way.` as a schema; without a type it is empty."""
    kind = _TYPE.match(text)
    schema: dict[str, Any] = {"type": kind[1].lower()} if kind else {}
    allowed = _ENUM.search(text)
    if allowed and schema.get("type") == "string":
        schema["enum"] = [value.strip() for value in allowed[1].split(",")]
    return schema


def _expected(where: str, record: Mapping[str, Any]) -> list[dict[str, Any]]:
    text = text_field(where, record, "answer")
    try:
        return [_call(action["Action"], action["Action_Input"]) for action in read_json(text)]
    except (KeyError, TypeError, ValueError):
        raise bad_field(where, "answer", text, _ANSWER) from None


def _call(name: str, text: str) -> dict[str, Any]:
    arguments = read_json(text)
    if not isinstance(name, str) or not isinstance(arguments, dict):
        raise TypeError
    optional = name.startswith(_OPTIONAL)
    return {"name": name.removeprefix(_OPTIONAL), "arguments": arguments, "optional": optional}

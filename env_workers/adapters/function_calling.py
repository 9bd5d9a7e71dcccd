"""Function calling: tools as JSON schemas, a question, and the calls that answer it.

A record: `question`, or `messages` (a list of {role, content}); `tools`, a list of {name, description, parameters} or
of {"type": "function", "function": {...}}; `calls`, a list of {name, arguments}; optional `id` and `ordered`. A field
that holds a list may also hold it as JSON text.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from env_workers.adapters import Purpose
from env_workers.adapters.fields import Options, bad_field, field, numbered, text_field
from env_workers.adapters.records import read_records
from env_workers.tools.prompt import tools_prompt
from sdpo.records import NotJsonError, read_json
from sdpo.types import Message, Task

_ROLES = ("system", "user", "assistant")


def function_calling(path: str, purpose: Purpose, options: Mapping[str, Any]) -> Iterator[Task]:
    """Yield one task a record. `tools` (an option): `message` puts the tools and the notation into a system message
    before the record's messages, `template` gives the tools to the model's chat template.
    """
    place = tools_option(Options("function_calling", options, ("tools",)))
    for number, (where, record) in enumerate(read_records(path, options), start=1):
        tools = [_tool(where, item) for item in _list(where, record, "tools")]
        calls = _list(where, record, "calls")
        name = str(record.get("id") or numbered("function-calling", purpose, number))
        payload = {"expected": calls, "ordered": record.get("ordered") or False}
        yield matching_task(name, where, record, tools, payload, place)


def tools_option(chosen: Options) -> str:
    """Return the option `tools`: where the model sees the tools."""
    return chosen.choice("tools", ("message", "template"), "message")


def matching_task(
    name: str,
    where: str,
    record: Mapping[str, Any],
    tools: list[dict[str, Any]],
    payload: Mapping[str, Any],
    place: str,
) -> Task:
    """Return a task of `tool_matching` with the messages of `record`; `place` is as `tools_option` gives it."""
    if place == "template":
        shown = tuple({"type": "function", "function": tool} for tool in tools)
        messages = _messages(where, record, None)
        return Task(id=name, messages=messages, environment="tool_matching", payload=payload, tools=shown)
    messages = _messages(where, record, tools_prompt(tools))
    return Task(id=name, messages=messages, environment="tool_matching", payload={"tools": tools, **payload})


def _messages(where: str, record: Mapping[str, Any], prompt: str | None) -> tuple[Message, ...]:
    """Return the messages of a record (`question` or `messages`), with `prompt` at the end of the system message."""
    messages = _own_messages(where, record)
    if prompt is None:
        return tuple(messages)
    if messages[0].role == "system":
        prompt = f"{messages.pop(0).content}\n\n{prompt}"
    return (Message(role="system", content=prompt), *messages)


def _own_messages(where: str, record: Mapping[str, Any]) -> list[Message]:
    if "messages" not in record:
        return [Message(role="user", content=text_field(where, record, "question"))]
    messages = []
    for item in _list(where, record, "messages"):
        if not isinstance(item, dict) or item.get("role") not in _ROLES or not isinstance(item.get("content"), str):
            raise bad_field(where, "messages", item, f"{{role, content}} with a role of {', '.join(_ROLES)}")
        messages.append(Message(role=item["role"], content=item["content"]))
    if not messages or messages[-1].role != "user":
        raise bad_field(where, "messages", record["messages"], "messages of which the last is the user's")
    return messages


def _tool(where: str, item: Any) -> dict[str, Any]:
    tool = item.get("function", item) if isinstance(item, dict) else item
    if not isinstance(tool, dict) or not isinstance(tool.get("name"), str):
        raise bad_field(where, "tools", item, "{name, description, parameters}")
    return {key: tool[key] for key in ("name", "description", "parameters") if key in tool}


def _list(where: str, record: Mapping[str, Any], key: str) -> list[Any]:
    value = field(where, record, key)
    if isinstance(value, str):
        try:
            value = read_json(value)
        except NotJsonError:
            raise bad_field(where, key, value, "a list, or the JSON text of one") from None
    if not isinstance(value, list):
        raise bad_field(where, key, value, "a list, or the JSON text of one")
    return value

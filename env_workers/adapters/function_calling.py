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
    """Yield one task a record; a system message with the tools and the notation comes before the record's messages."""
    Options("function_calling", options)
    for number, (where, record) in enumerate(read_records(path, options), start=1):
        tools = [_tool(where, item) for item in _list(where, record, "tools")]
        calls = _list(where, record, "calls")
        yield Task(
            id=str(record.get("id") or numbered("function-calling", purpose, number)),
            messages=messages_with(where, record, tools_prompt(tools)),
            environment="tool_matching",
            payload={"tools": tools, "expected": calls, "ordered": record.get("ordered") or False},
        )


def messages_with(where: str, record: Mapping[str, Any], prompt: str) -> tuple[Message, ...]:
    """Return the messages of a record (`question` or `messages`) with `prompt` at the end of the system message."""
    if "messages" not in record:
        question = text_field(where, record, "question")
        return (Message(role="system", content=prompt), Message(role="user", content=question))
    messages = []
    for item in _list(where, record, "messages"):
        if not isinstance(item, dict) or item.get("role") not in _ROLES or not isinstance(item.get("content"), str):
            raise bad_field(where, "messages", item, f"{{role, content}} with a role of {', '.join(_ROLES)}")
        messages.append(Message(role=item["role"], content=item["content"]))
    if messages and messages[0].role == "system":
        prompt = f"{messages.pop(0).content}\n\n{prompt}"
    if not messages or messages[-1].role != "user":
        raise bad_field(where, "messages", record["messages"], "messages of which the last is the user's")
    return (Message(role="system", content=prompt), *messages)


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

"""How tools are shown to a model that is to call them in the notation `json`."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

_HEAD = "You may call the following tools. Each line describes one: its name, what it does, and its arguments as a"
_CALLS = """To call a tool, write a JSON object with its name and arguments between these tags, one call in each pair:
<tool_call>
{"name": "the tool", "arguments": {"an argument": "its value"}}
</tool_call>"""
_ANSWER = """You read the result of each call before you go on. When you know the answer, make no call; write it as:
<answer>
the answer
</answer>"""


def tools_prompt(tools: Sequence[Mapping[str, Any]], *, answer: bool = False) -> str:
    """Return a system message: the tools, one a line, and how to call them; with `answer`, also how to end."""
    shown = "\n".join(
        json.dumps({key: tool[key] for key in ("name", "description", "parameters") if key in tool}, ensure_ascii=False)
        for tool in tools
    )
    return "\n\n".join([f"{_HEAD} JSON schema.\n{shown}", _CALLS, *([_ANSWER] if answer else [])])

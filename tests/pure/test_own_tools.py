"""The environment with tools of one's own in docs/environments.md, as it stands there."""

import re
from pathlib import Path
from typing import Any

import pytest

from env_workers.environment import Observation, Reply
from env_workers.tools.notations import BadCalls, Call, read_calls
from sdpo.types import Task, Verdict

PAGE = (Path(__file__).parents[2] / "docs/environments.md").read_text()


@pytest.fixture
def light() -> Any:
    found = re.search(r"^```python light.py\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    assert found is not None
    names: dict[str, Any] = {"__name__": "light"}
    exec(compile(found[1], "light.py", "exec"), names)
    return names["Light"](None)


def test_the_example_plays(light: Any) -> None:
    task = Task(id="t", messages=(), environment="light:Light", payload={"wanted": "on"})
    light.check(task)
    session = light.open(task)
    told = session.step(Reply(text='<tool_call>{"name": "switch"}</tool_call>'))
    assert isinstance(told, Observation)
    assert told.messages[0].content == "Call 1 ('switch'): its arguments are not a JSON object."
    told = session.step(Reply(text='<tool_call>{"name": "switch", "arguments": {"to": "on"}}</tool_call>'))
    assert isinstance(told, Observation)
    assert told.messages[0].content == "The light is on."
    verdict = session.step(Reply(text="It is on."))
    assert isinstance(verdict, Verdict)
    assert (verdict.success, verdict.kind) == (True, "done")
    assert light.open(task).step(Reply(text="It is on.")).kind == "not_done"


def test_calls_are_read_in_both_notations() -> None:
    want = [Call(name="f", arguments={"n": 1}), Call(name="g", arguments={})]
    calls = '[{"name": "f", "arguments": {"n": 1}}, {"name": "g", "arguments": "{}"}]'
    assert read_calls(f"So:\n<tool_call>{calls}</tool_call>") == want
    assert read_calls(f"```json\n{calls}\n```") == want
    assert read_calls('Action: f\nAction Input: {"n": 1}\nAction: g\nAction Input: {}', "react") == want
    assert read_calls("No tool helps.") == []
    with pytest.raises(BadCalls, match="Call 1: it has no name"):
        read_calls("<tool_call>{}</tool_call>")

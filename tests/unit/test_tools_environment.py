"""Tools that run in a sandbox: what the model reads, what they remember, and how an attempt ends."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from env_workers.code_retry import CodeRetryEnvironment
from env_workers.environment import Context, Observation, Reply
from env_workers.sandbox.pool import SandboxPool
from env_workers.tools.environment import NativeToolsEnvironment, ToolsEnvironment, ToolsSession
from sdpo.config import BubblewrapSandbox, EnvConfig
from sdpo.errors import EnvironmentFault, TaskFileError
from sdpo.types import Task, Verdict

ADD = {
    "name": "add",
    "description": "Adds to the total.",
    "parameters": {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]},
    "source": "def add(n):\n    total.append(n)\n    return {'total': sum(total), 'seen': {n}}",
}
FAIL = {
    "name": "fail",
    "source": (
        "def fail(how):\n    import os, random\n    if how == 'exit':\n        os._exit(1)\n"
        "    if how == 'hang':\n        while True: pass\n    if how == 'long':\n        return 'x' * 5000\n"
        "    if how == 'random':\n        return str(random.random())\n"
        "    raise ValueError('broken at /srv/tools/a.py')"
    ),
}
PAYLOAD = {"tools": [ADD, FAIL], "setup": "total = []", "answer": {"kind": "number", "value": 42}, "time_limit_s": 0.5}


@pytest.fixture(scope="module")
def context() -> Iterator[Context]:
    config = EnvConfig(max_feedback_chars=200, sandbox=BubblewrapSandbox(memory_mib=256))
    pool = SandboxPool(config, "test-tools", "env-0")
    yield Context(config=config, sandbox=pool)
    pool.close()


def begin(context: Context, kind: Any = ToolsEnvironment, **payload: Any) -> ToolsSession:
    task = Task(id="t", messages=(), environment="tools", payload={**PAYLOAD, **payload})
    kind.check(task)
    session: ToolsSession = kind(context).open(task)
    return session


def call(name: str, **arguments: Any) -> str:
    return f"<tool_call>{json.dumps({'name': name, 'arguments': arguments})}</tool_call>"


def read(session: ToolsSession, text: str) -> list[str]:
    answer = session.step(Reply(text=text))
    assert isinstance(answer, Observation)
    content = answer.messages[0].content
    return [part.rpartition("\n</tool_response>")[0] for part in content.split("<tool_response>\n")[1:]]


def end(session: ToolsSession, text: str) -> Verdict:
    verdict = session.step(Reply(text=text))
    assert isinstance(verdict, Verdict)
    return verdict


def test_tools_remember_within_an_attempt_and_not_beyond(context: Context) -> None:
    session = begin(context)
    assert read(session, call("add", n=40)) == ['{"total": 40, "seen": [40]}']
    first, second = read(session, call("fail", how="random") + call("add", n=1))
    assert second.startswith('{"total": 41')
    assert read(session, call("add", n=1)) == ['{"total": 42, "seen": [1]}']
    assert end(session, "<answer>42.0</answer>").success
    again = begin(context)
    assert read(again, call("add", n=40)) == ['{"total": 40, "seen": [40]}']
    assert read(again, call("fail", how="random")) == [first]


def test_errors_are_read_and_feed_back(context: Context) -> None:
    session = begin(context)
    failing = "".join(call("fail", how=how) for how in ("raise", "exit", "hang"))
    assert read(session, failing + call("add", n=2)) == [
        "Error: ValueError: broken at <path>",
        "Error: the tool ended its process",
        "Error: time limit exceeded",
        '{"total": 2, "seen": [2]}',
    ]
    (long,) = read(session, call("fail", how="long"))
    assert len(long) <= 200
    told = read(session, call("add", n="2") + call("sub", n=1))
    assert told[0] == "Error: the argument 'n' must be an integer, not a string"
    assert told[1] == "Error: there is no tool 'sub'; the tools are add and fail"
    assert "not valid JSON" in read(session, "<tool_call>{name}</tool_call>")[0]
    verdict = end(session, "<answer>41</answer>")
    assert (verdict.kind, verdict.details) == ("wrong_answer", {"num_calls": 7, "num_failed_calls": 5})
    assert "Call 7 ('sub'): Error: there is no tool 'sub'" in verdict.feedback
    assert "42" not in verdict.feedback


def test_an_attempt_that_is_ended(context: Context) -> None:
    session = begin(context)
    assert session.end("turns").kind == "turn_limit"
    assert session.end("tokens").feedback.startswith("Token Limit Exceeded\n")
    assert end(session, "It is 42.").kind == "wrong_format"
    cut = session.step(Reply(text='<tool_call>{"name": "add"', truncated=True))
    assert isinstance(cut, Verdict)
    assert cut.kind == "truncated"


def test_results_as_messages_of_the_role_tool(context: Context) -> None:
    answer = begin(context, NativeToolsEnvironment).step(Reply(text=call("add", n=1) + call("add", n=1)))
    assert isinstance(answer, Observation)
    assert [(m.role, m.content[:11]) for m in answer.messages] == [("tool", '{"total": 1'), ("tool", '{"total": 2')]


CHECK = """
def check(answer, calls):
    if answer == "none": return None
    if answer == "raise": raise KeyError(answer)
    return 1 if calls and answer == "yes" else [0.5, "No call was made."]
"""


def test_answers_are_judged_as_the_payload_says(context: Context) -> None:
    assert end(begin(context, answer={"kind": "exact", "value": "a b"}), "<answer> a\n b </answer>").success
    assert end(begin(context), "<answer>many</answer>").feedback.endswith("The answer must be a number alone.")
    pattern = {"kind": "pattern", "pattern": "(a+)+b"}
    assert end(begin(context, answer=pattern), "<answer>aab</answer>").success
    slow = end(begin(context, answer=pattern), f"<answer>{'a' * 50}</answer>")
    assert (slow.kind, slow.reward) == ("check_failed", 0.0)
    checked = begin(context, answer={"kind": "check", "source": CHECK})
    half = end(checked, "<answer>yes</answer>")
    assert (half.reward, half.success) == (0.5, False)
    assert half.feedback == "Wrong Answer\n'yes' is not the right answer. No call was made."
    assert end(checked, "<answer>raise</answer>").kind == "check_failed"
    with pytest.raises(EnvironmentFault, match="check gave None: allowed: true, false"):
        end(checked, "<answer>none</answer>")
    read(checked, call("add", n=1))
    assert end(checked, "<answer>yes</answer>").success


@pytest.mark.parametrize(
    ("payload", "line"),
    [
        ({"tools": [{**ADD, "source": "def sub(n): pass"}]}, "allowed: Python that defines the function add"),
        ({"tools": [{**ADD, "source": "def add(n:"}]}, "payload.tools\\[0\\].source is no Python"),
        ({"tools": [ADD, ADD]}, "names add twice"),
        ({"answer": {"kind": "vague"}}, "allowed: exact, number, pattern, check"),
        ({"answer": {"kind": "pattern", "pattern": "("}}, "a regular expression"),
        ({"answer": {"kind": "exact", "value": "1", "tolerance": 1}}, "unknown key tolerance"),
        ({"time_limit_s": 0}, "a number of seconds above 0"),
    ],
)
def test_payloads_that_cannot_be_used(payload: dict[str, Any], line: str) -> None:
    with pytest.raises(TaskFileError, match=line):
        ToolsEnvironment.check(Task(id="t", messages=(), environment="tools", payload={**PAYLOAD, **payload}))


def test_a_program_is_tried_again_until_it_is_right_or_the_tries_are_used_up(context: Context) -> None:
    tests = [{"kind": "functional", "function": "f", "inputs": [2], "expected": 4}]
    payload = {"tests": tests, "max_tries": 2}
    task = Task(id="t", messages=(), environment="code_retry", payload=payload)
    CodeRetryEnvironment.check(task)
    environment = CodeRetryEnvironment(context)
    wrong, right = (Reply(text=f"```python\ndef f(x):\n    return {body}\n```") for body in ("x", "x * x"))
    session = environment.open(task)
    told = session.step(wrong)
    assert isinstance(told, Observation)
    assert told.messages[0].role == "user"
    assert "Output: 2\nExpected: 4\n\nThe program is not right yet." in told.messages[0].content
    last = session.step(right)
    assert isinstance(last, Verdict)
    assert (last.reward, last.details["num_tries"]) == (1.0, 2)
    session = environment.open(task)
    session.step(wrong)
    assert session.end("turns").kind == "wrong_answer"
    used_up = session.step(wrong)
    assert isinstance(used_up, Verdict)
    assert (used_up.reward, used_up.kind) == (0.0, "wrong_answer")
    with pytest.raises(TaskFileError, match="max_tries is 0; allowed: a positive integer"):
        CodeRetryEnvironment.check(
            Task(id="t", messages=(), environment="code_retry", payload=payload | {"max_tries": 0})
        )

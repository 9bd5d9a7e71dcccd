"""Tools with a user who goes on and a check that sees what the calls left behind, in a real sandbox."""

import re
from collections.abc import Iterator
from typing import Any

import pytest

from env_workers.answers import checked
from env_workers.environment import Context, Observation, Reply
from env_workers.sandbox.pool import SandboxPool
from env_workers.tools.environments import NativeToolsEnvironment, ToolsEnvironment, ToolsSession
from env_workers.tools.loading import check_loads
from orchestrator.inputs.limits import check_limits_of_task
from sdpo.config import BubblewrapSandbox, EnvConfig
from sdpo.errors import EnvironmentFault, TaskFileError
from sdpo.types import Message, Task, Verdict

ADD = {"name": "add", "source": "def add(item):\n    CART.append(item)\n    return CART"}
REMOVE = {"name": "remove", "source": "def remove(item):\n    CART.remove(item)\n    return CART"}
CHECK = "def check(answer, calls):\n    return CART == ['eggs'] or [len(CART) / 10, f'There are {len(CART)} items.']"
PAYLOAD: dict[str, Any] = {
    "setup": "CART = []",
    "tools": [ADD, REMOVE],
    "user_turns": ["Now also eggs.", "Take the milk out."],
    "answer": {"kind": "check", "source": CHECK, "sees_state": True},
}
WORDS = "Use add and remove."


@pytest.fixture(scope="module")
def context() -> Iterator[Context]:
    config = EnvConfig(sandbox=BubblewrapSandbox(memory_mib=256))
    pool = SandboxPool(config, "test-carts", "env-0")
    yield Context(config=config, sandbox=pool)
    pool.close()


def task_with(environment: str = "tools", **payload: Any) -> Task:
    messages = (Message(role="user", content=WORDS),)
    return Task(id="t", messages=messages, environment=environment, payload={**PAYLOAD, **payload})


def begin(context: Context, kind: type[ToolsEnvironment] = ToolsEnvironment, **payload: Any) -> ToolsSession:
    task = task_with(**payload)
    kind.check(task)
    return kind(context).open(task)


def told(session: ToolsSession, text: str) -> list[tuple[str, str]]:
    answer = session.step(Reply(text=text))
    assert isinstance(answer, Observation)
    return [(message.role, message.content) for message in answer.messages]


def end(session: ToolsSession, text: str, truncated: bool = False) -> Verdict:
    verdict = session.step(Reply(text=text, truncated=truncated))
    assert isinstance(verdict, Verdict)
    return verdict


def call(name: str, item: str) -> str:
    return f'<tool_call>{{"name": "{name}", "arguments": {{"item": "{item}"}}}}</tool_call>'


def test_the_user_goes_on_when_a_turn_ends_without_a_call(context: Context) -> None:
    session = begin(context)
    assert told(session, call("add", "milk")) == [("user", '<tool_response>\n["milk"]\n</tool_response>')]
    assert told(session, "The milk is in the cart.") == [("user", "Now also eggs.")]
    assert told(session, call("add", "eggs")) == [("user", '<tool_response>\n["milk", "eggs"]\n</tool_response>')]
    assert told(session, "<answer>done</answer>") == [("user", "Take the milk out.")]
    told(session, call("remove", "milk"))
    verdict = end(session, "Only the eggs are left.")
    assert (verdict.success, verdict.reward, verdict.details["num_calls"]) == (True, 1.0, 3)


def test_the_state_in_the_end_decides_and_the_checks_words_are_the_feedback(context: Context) -> None:
    session = begin(context, user_turns=[])
    told(session, call("add", "milk") + call("add", "eggs") + call("remove", "bread"))
    verdict = end(session, "Done.")
    assert (verdict.success, verdict.reward, verdict.kind) == (False, 0.2, "wrong_answer")
    assert verdict.feedback.splitlines() == [
        "Wrong Answer",
        "The task is not done. There are 2 items.",
        "Calls that failed:",
        "Call 3 ('remove'): Error: ValueError: list.remove(x): x not in list",
    ]
    assert end(session, "<answer>7</answer>").feedback.splitlines()[1].startswith("'7' is not the right answer. There")


def test_the_reply_or_what_is_in_answer_reaches_the_check(context: Context) -> None:
    answer = {"kind": "check", "source": "def check(answer, calls):\n    return answer == 'eggs'", "sees_state": True}
    session = begin(context, user_turns=[], answer=answer)
    assert end(session, " eggs ").success
    assert end(session, "I think <answer>eggs</answer>").success
    assert not end(session, "I think eggs").success


def test_results_of_the_role_tool_and_words_of_the_user_stand_in_one_attempt(context: Context) -> None:
    task = task_with("tools_native")
    session = NativeToolsEnvironment(context).open(task)
    roles = []
    for text in (call("add", "milk"), "Done."):
        answer = checked(task, session.step(Reply(text=text)), "tool", "step")
        assert isinstance(answer, Observation)
        roles.append(answer.messages[0].role)
    assert roles == ["tool", "user"]
    wrong = Observation(messages=(Message(role="assistant", content="x"),))
    with pytest.raises(EnvironmentFault, match="Messages of role user, or of role tool, its observation_role"):
        checked(task, wrong, "tool", "step")


def test_a_cut_reply_ends_the_attempt_whatever_the_user_had_to_say(context: Context) -> None:
    assert end(begin(context), "I will", truncated=True).kind == "truncated"


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("def check(answer, calls):\n    CART.append(1)\n    return CART[7]", "IndexError: .*line 3 of the check"),
        ("def check(answer, calls):\n    return remove('x')", r"ValueError: .*line 2 of tools\[1\].source"),
        ("def check(answer, calls):\n    while True: pass", "timeout"),
    ],
)
def test_a_check_that_fails_names_its_place(context: Context, source: str, error: str) -> None:
    answer = {"kind": "check", "source": source, "sees_state": True}
    session = begin(context, user_turns=[], answer=answer, time_limit_s=0.5)
    told(session, call("add", "milk"))
    verdict = end(session, "Done.")
    assert verdict.kind == "check_failed"
    assert re.search(error, str(verdict.details["check_error"]))


def test_only_a_check_that_sees_the_state_may_use_its_names(context: Context) -> None:
    check_loads([task_with()], context.sandbox, 1, 1.0, total_s=60.0)
    blind = task_with(answer={"kind": "check", "source": CHECK})
    with pytest.raises(TaskFileError, match=r"payload.answer.source, line 2: NameError: name 'CART'"):
        check_loads([blind], context.sandbox, 1, 1.0, total_s=60.0)
    typo = task_with(answer={**PAYLOAD["answer"], "source": "def check(answer, calls):\n    return CARD == []"})
    with pytest.raises(TaskFileError, match=r"payload.answer.source, line 2: NameError: name 'CARD'"):
        check_loads([typo], context.sandbox, 1, 1.0, total_s=60.0)


@pytest.mark.parametrize(
    ("payload", "line"),
    [
        ({"user_turns": "Go on."}, "payload.user_turns is Go on.; allowed: a list of strings that are not blank"),
        ({"user_turns": ["Go on.", " "]}, "payload.user_turns is "),
        ({"answer": {**PAYLOAD["answer"], "sees_state": 1}}, "payload.answer.sees_state is 1; allowed: true or false"),
        ({"answer": {"kind": "exact", "value": "1", "sees_state": True}}, "payload.answer has the unknown key sees"),
        ({"tools": [ADD, {"name": "check", "source": "def check(): pass"}]}, "allowed: another name of a tool"),
    ],
)
def test_what_cannot_be_played_is_refused(payload: dict[str, Any], line: str) -> None:
    with pytest.raises(TaskFileError, match=f"task t: .*{line}"):
        ToolsEnvironment.check(task_with(**payload))


def test_more_user_turns_than_the_model_may_answer_are_refused() -> None:
    check_limits_of_task(task_with(user_turns=["Go on."] * 7), EnvConfig(max_turns=8))
    with pytest.raises(TaskFileError, match=r"user_turns has 8 turns, .*; allowed: fewer than env.max_turns=8"):
        check_limits_of_task(task_with(user_turns=["Go on."] * 8), EnvConfig(max_turns=8))

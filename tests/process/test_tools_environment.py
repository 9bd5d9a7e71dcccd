"""Tools that run in a sandbox: what the model reads, what they remember, and how an attempt ends."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from env_workers.code.environment import CodeEnvironment
from env_workers.code_retry import CodeRetryEnvironment
from env_workers.environment import Context, Observation, Reply
from env_workers.sandbox.pool import SandboxPool
from env_workers.tools.environments import NativeToolsEnvironment, ToolsEnvironment, ToolsSession
from env_workers.tools.loading import check_loads
from orchestrator.cli import main
from sdpo.config import BubblewrapSandbox, EnvConfig
from sdpo.errors import EnvironmentFault, TaskFileError
from sdpo.types import Message, Task, Verdict
from tests.fixtures.run import ROOT

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
        ({"answer": {"kind": "number", "value": 10**400}}, "a finite number"),
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


@pytest.mark.parametrize("environment", [CodeEnvironment, CodeRetryEnvironment])
@pytest.mark.parametrize("in_thinking", [False, True])
def test_a_program_counts_only_after_the_thinking(context: Context, environment: Any, in_thinking: bool) -> None:
    tests = [{"kind": "functional", "function": "f", "inputs": [2], "expected": 4}]
    task = Task(id="t", messages=(), environment="code", payload={"tests": tests})
    right = "```python\ndef f(x):\n    return x * x\n```"
    wrong = "```python\n# longer than the right program\ndef f(x):\n    return x + 1\n```"
    begin = "" if in_thinking else "<think>"

    def judged(text: str) -> tuple[bool, str]:
        answer = environment(context).open(task).step(Reply(text=begin + text, in_thinking=in_thinking))
        return (answer.success, answer.kind) if isinstance(answer, Verdict) else (False, "another turn")

    nothing = (False, "no_program" if environment is CodeEnvironment else "another turn")
    assert judged(f"{wrong}</think>{right}") == (True, "passed")
    assert judged(f"{right}</think>{wrong}")[0] is False
    assert judged(f"{right}</think>That was it.") == nothing
    assert judged(right) == nothing


def tools_task(name: str, **payload: Any) -> Task:
    return Task(id=name, messages=(), environment="tools", payload={**PAYLOAD, **payload})


def checked_by(source: str) -> dict[str, Any]:
    return {"answer": {"kind": "check", "source": source}}


@pytest.mark.parametrize(
    ("payload", "line"),
    [
        ({"setup": "total = []\nimport no_such_package"}, r"setup, line 2: ModuleNotFoundError: No module named"),
        ({"setup": "total = undefined"}, r"setup, line 1: NameError: name 'undefined' is not defined"),
        ({"setup": "total = []\n\nraise ValueError('no')\n"}, r"setup, line 3: ValueError: no"),
        ({"setup": "while True: pass"}, r"setup, line 1: (timeout|cpu_limit)"),
        (
            {"tools": [ADD, FAIL | {"source": "X = 1\nY = Z\n" + FAIL["source"]}]},
            r"tools\[1\].source, line 2: NameError",
        ),
        (checked_by("def check(answer, calls):\n    return anwser == '120'"), r"answer.source, line 2: NameError"),
        (checked_by("import numpi\ndef check(answer, calls):\n    return True"), r"answer.source, line 1: ModuleNot"),
        (checked_by("def check(answer):\n    return True"), r"answer.source, line 1: TypeError"),
        (checked_by("def check(answer, calls):\n    return answer.stripp() == '5'"), r"line 2: AttributeError"),
    ],
)
def test_what_can_never_run_is_found_without_a_call(context: Context, payload: dict[str, Any], line: str) -> None:
    tasks = [tools_task("good"), tools_task("bad", **payload)]
    with pytest.raises(
        TaskFileError, match=f"^task bad: payload.{line if 'source' in line or 'setup' in line else '.*' + line}"
    ):
        check_loads(tasks, context.sandbox, 1, 1.0, total_s=60.0)


@pytest.mark.parametrize(
    "body",
    [
        "return calls[0]['result'] == answer",
        "return float(answer) == 3",
        "import re\n    return re.search(r'(\\d+) nails', answer).group(1) == '120'",
        "import json\n    return json.loads(answer)['total'] == 3",
        "return True if answer else undefined",
    ],
)
def test_checks_that_fail_on_some_answers_are_accepted(context: Context, body: str) -> None:
    task = tools_task("t", **checked_by(f"def check(answer, calls):\n    {body}"))
    assert check_loads([task], context.sandbox, 1, 1.0, total_s=60.0) == 0


def test_loads_end_with_their_time(context: Context) -> None:
    tasks = [tools_task(f"t{n}", setup=f"import time\ntime.sleep(0.3)\nn = {n}") for n in range(6)]
    assert 2 <= check_loads(tasks, context.sandbox, 1, 5.0, total_s=0.5) <= 5


def test_how_a_check_failed_is_in_the_details_and_not_in_the_feedback(context: Context) -> None:
    source = "def check(answer, calls):\n    key = 'secret'\n    return {'a': 1}[key] == answer"
    verdict = end(begin(context, **checked_by(source)), "<answer>7</answer>")
    assert (verdict.kind, verdict.details["check_error"]) == (
        "check_failed",
        "KeyError: 'secret' (line 3 of the check)",
    )
    assert "secret" not in verdict.feedback


def test_a_setup_that_does_not_load_is_the_tasks_fault_and_no_result(context: Context) -> None:
    session = begin(context, setup="total = []\nimport no_such_package")
    with pytest.raises(TaskFileError, match=r"^task t: payload.setup, line 2: ModuleNotFoundError: .*no_such_package"):
        session.step(Reply(text=call("add", n=1)))


def test_preview_and_tasks_refuse_them_with_the_file(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    task = {"messages": [{"role": "user", "content": "add, fail"}], "environment": "tools"}
    records = [task | {"id": "good", "payload": PAYLOAD}, task | {"id": "bad", "payload": PAYLOAD | {"setup": "x = y"}}]
    (tmp_path / "t.jsonl").write_text("".join(f"{json.dumps(record)}\n" for record in records))
    for command in ("tasks", "preview"):
        run_file = str(ROOT / "examples/tinycoder.yaml")
        assert main([command, run_file, f"tasks.train={tmp_path / 't.jsonl'}", "tasks.heldout=null"]) == 2
        said = capfd.readouterr()
        assert (said.out, said.err.count("\n")) == ("", 1)
        assert "t.jsonl, line 2: task bad: payload.setup, line 1: NameError: name 'y' is not defined" in said.err


@pytest.mark.parametrize("kind", [ToolsEnvironment, NativeToolsEnvironment])
def test_a_task_whose_model_would_see_no_tools_is_refused(kind: Any) -> None:
    def asked(text: str) -> Task:
        return Task(id="t", messages=(Message(role="user", content=text),), environment="tools", payload=PAYLOAD)

    kind.check(asked("Call add until it is 42."))
    with pytest.raises(TaskFileError, match=r"^task t: no message names a tool \(add and fail\)"):
        kind.check(asked("How many are there?"))

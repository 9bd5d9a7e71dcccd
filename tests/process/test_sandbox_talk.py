"""Conversations with sandboxes: programs that keep state, asserts in one sandbox and the program in another."""

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from env_workers.environment import AssertProgram, SandboxViolation
from env_workers.sandbox import asserts
from env_workers.sandbox.base import Ended
from env_workers.sandbox.bubblewrap import Bubblewrap
from env_workers.sandbox.pool import SandboxPool
from sdpo.config import BubblewrapSandbox, EnvConfig
from sdpo.errors import InfrastructureError

LIMITS = BubblewrapSandbox(memory_mib=256, max_processes=16, wall_time_s=2.0)
DOUBLE = AssertProgram(functions=("f",), source="THREE = 3", groups=("assert f(2) == 4", "assert f(x=THREE) == 6"))


@pytest.fixture(scope="module")
def pool() -> Iterator[SandboxPool]:
    pool = SandboxPool(EnvConfig(sandbox=LIMITS, sandboxes_per_worker=2), "test", "env-test")
    yield pool
    pool.close()


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Bubblewrap]:
    sandbox = Bubblewrap(LIMITS)
    sandbox.start()
    yield sandbox
    sandbox.close()


def statuses(records: list[Any]) -> list[str]:
    return [record["outcome"]["status"] if record["status"] == "program" else record["status"] for record in records]


def call(*args: Any, **kwargs: Any) -> dict[str, Any]:
    return {"function": "f", "args": list(args), "kwargs": kwargs}


def functional(*inputs: Any) -> dict[str, Any]:
    return {"kind": "functional", "function": "f", "inputs": list(inputs)}


def test_calls_share_a_module_only_when_asked(pool: SandboxPool) -> None:
    program = "n = 0\ndef f(by=1):\n    global n\n    n += by\n    return n"
    calls = [functional(), functional(5), {**functional(), "kwargs": {"by": 2}}]
    for shared, values in ((True, [1, 6, 8]), (False, [1, 5, 2])):
        records = pool.execute(program, calls, 1.0, shared=shared)
        assert [record["value"] for record in records] == values


def test_a_program_answers_calls_until_it_is_stopped(sandbox: Bubblewrap) -> None:
    conversation = sandbox.converse("candidate", {"source": "def f(x, y=0):\n    print(x)\n    return 6 // x + y"}, 1.0)
    assert conversation.receive(5.0) == {"status": "ready"}
    answers = []
    for message in (call(2), call(0), call(3, y=10)):
        conversation.send(message)
        answers.append(conversation.receive(5.0))
    assert [answer["status"] for answer in answers] == ["returned", "raised", "returned"]
    assert [answers[0]["value"], answers[2]["value"]] == [3, 12]
    assert conversation.close() == conversation.close() == Ended({"status": "stopped"})
    assert sandbox.execute("def f():\n    return 6", [functional()], 1.0) == [{"status": "returned", "value": 6}]


ENDINGS = {
    "exit": ("import os\ndef f():\n    os._exit(3)", {"status": "exited", "code": 3}),
    "loop": ("def f():\n    while True: pass", {"status": "timeout"}),
    "a word too many": (
        "import os\ndef f():\n    for fd in range(3, 99):\n        try: os.write(fd, b'?1\\n?2\\n')\n"
        "        except OSError: pass",
        {"status": "garbled"},
    ),
    "no JSON": (
        "import os\ndef f():\n    for fd in range(3, 99):\n        try: os.write(fd, b'?{{\\n')\n"
        "        except OSError: pass\n    os._exit(0)",
        {"status": "garbled"},
    ),
    "does not listen": ("import time\ndef f():\n    time.sleep(9)", {"status": "timeout"}),
}


@pytest.mark.parametrize("name", ENDINGS)
def test_a_conversation_ends_with_what_ended_it(sandbox: Bubblewrap, name: str) -> None:
    source, outcome = ENDINGS[name]
    conversation = sandbox.converse("candidate", {"source": source}, 0.5)
    assert conversation.receive(5.0) == {"status": "ready"}
    conversation.send(call())
    if name == "does not listen":
        conversation.send(call(["str", "x" * 2**21]))
    answer: Any = None
    begin = time.monotonic()
    while not isinstance(answer, Ended):
        answer = conversation.receive(5.0)
    assert answer.outcome == outcome
    assert time.monotonic() - begin < 4
    conversation.send(call())  # a word to the dead
    assert conversation.close() == answer
    assert sandbox.execute("def f():\n    return 6", [functional()], 1.0) == [{"status": "returned", "value": 6}]


def test_asserts_pass_and_fail_by_what_the_program_returns(pool: SandboxPool) -> None:
    assert statuses(pool.judge_asserts("def f(x):\n    return 2 * x", DOUBLE, 1.0)) == ["passed", "passed"]
    assert statuses(pool.judge_asserts("def f(x):\n    return 4", DOUBLE, 1.0)) == ["passed", "failed"]
    assert statuses(pool.judge_asserts("def f(x", DOUBLE, 1.0))[0] == "syntax_error"
    assert statuses(pool.judge_asserts("import os\nos._exit(0)", DOUBLE, 1.0)) == ["exited", "not_run"]
    started = pool.counters["sandboxes_started"]
    assert statuses(pool.judge_asserts("def f(x):\n    while True: pass", DOUBLE, 0.3)) == ["timeout", "not_run"]
    assert pool.counters["sandboxes_started"] == started


def test_a_program_that_breaks_its_sandbox_is_told_from_asserts_that_break_theirs(pool: SandboxPool) -> None:
    with pytest.raises(SandboxViolation):
        pool.judge_asserts("import os\ndef f(x):\n    os.kill(os.getpid(), 9)", DOUBLE, 1.0)
    broken = AssertProgram(functions=("f",), source="import os; os._exit(1)", groups=("assert f(1) == 2",))
    with pytest.raises(InfrastructureError, match="the asserts' sandbox"):
        pool.judge_asserts("def f(x):\n    return 2 * x", broken, 1.0)
    assert statuses(pool.judge_asserts("def f(x):\n    return 2 * x", DOUBLE, 1.0)) == ["passed", "passed"]


def test_a_value_that_the_asserts_cannot_digest_is_the_programs_failure(
    pool: SandboxPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asserts, "ASSERTS_STEP_S", 0.5)
    counting = AssertProgram(functions=("f",), source="", groups=("assert f(1) == 1", "for _ in range(f(2)): pass"))
    records = pool.judge_asserts("def f(x):\n    return 1 if x == 1 else 10**15", counting, 1.0)
    assert statuses(records) == ["passed", "timeout"]


def test_no_trace_of_an_earlier_program_is_in_memory(pool: SandboxPool) -> None:
    word, mask = "xyzzy-plugh-", 7
    hidden = [ord(letter) ^ mask for letter in word]
    secret = f"SECRET = '{word * 50}'\ndef f(x):\n    open('/tmp/{word}', 'w').write(SECRET)\n    return SECRET + x"
    hunt = (
        f"import re\nWORD = bytes(c ^ {mask} for c in {hidden})\ndef f():\n    count = 0\n"
        "    for line in open('/proc/self/maps'):\n"
        "        begin, end, mode = re.match('(\\\\w+)-(\\\\w+) (\\\\S+)', line).groups()\n"
        "        if mode.startswith('rw') and '[v' not in line:\n"
        "            with open('/proc/self/mem', 'rb') as memory:\n                memory.seek(int(begin, 16))\n"
        "                data = memory.read(int(end, 16) - int(begin, 16))\n            found = -1\n"
        "            while (found := data.find(WORD, found + 1)) >= 0:\n"
        "                count += data.startswith(WORD, found + len(WORD))\n"  # twice in a row: not WORD itself
        "    return count"
    )
    own = f"KEPT = '{word * 50}'\n" + hunt
    one = SandboxPool(EnvConfig(sandbox=LIMITS), "test", "env-test")
    try:
        assert one.execute(own, [functional()], 2.0)[0]["value"] > 40  # the hunt works
        for _ in range(3):
            assert one.execute(secret, [functional(word)], 1.0)[0]["status"] == "returned"
        assert one.execute(hunt, [functional()], 2.0) == [{"status": "returned", "value": 0}]
        assert one.counters["sandboxes_started"] == 1
    finally:
        one.close()


def test_threads_share_the_slots(pool: SandboxPool) -> None:
    done: list[Any] = []

    def work(number: int) -> None:
        for _ in range(10):
            records = pool.execute("def f(x):\n    return x + 1", [functional(number)], 1.0)
            done.append(records == [{"status": "returned", "value": number + 1}])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert done == [True] * 40

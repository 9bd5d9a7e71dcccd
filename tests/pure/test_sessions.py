"""The env worker in several turns: sessions stay open, are played again where they are not, and end with their time."""

import sys
import threading
from typing import Any, ClassVar, Literal

import pytest

import env_workers.metrics  # noqa: F401  brings ray, whose first import binds a socket
from env_workers.environment import Context, Ending, Exchange, Observation, Reply, SandboxViolation
from env_workers.sessions import Sessions
from env_workers.worker import EnvWorker
from sdpo.config import EnvConfig
from sdpo.errors import EnvironmentFault, InfrastructureError
from sdpo.types import Message, Task, Verdict

OPENED: list["Recital"] = []


class Poem:
    """The model must say `lines` one after the other; a wrong line is told, `break` breaks a sandbox."""

    observation_role: ClassVar[Literal["user", "tool"] | None] = "user"

    def __init__(self, context: Context) -> None:
        pass

    @classmethod
    def check(cls, task: Task) -> None: ...

    def open(self, task: Task) -> "Recital":
        OPENED.append(Recital(task))
        return OPENED[-1]


class Recital:
    def __init__(self, task: Task) -> None:
        self.lines, self.said, self.closed = list(task.payload["lines"]), list[str](), False

    def step(self, reply: Reply) -> Observation | Verdict:
        if reply.text == "break":
            raise InfrastructureError("the stage collapsed")
        if reply.text == "violate":
            raise SandboxViolation("it fights")
        if reply.text == "boo":
            raise RuntimeError("the author's own mistake")
        self.said.append(reply.text)
        if self.said == self.lines:
            return Verdict(reward=1.0, success=True, kind="passed", feedback="f" * 500)
        return Observation(messages=(Message(role="user", content=f"{len(self.said)} of {len(self.lines)}"),))

    def end(self, ending: Ending) -> Verdict:
        return Verdict(reward=0.0, success=False, kind="incomplete", feedback=f"{ending}: {'/'.join(self.said)}")

    def close(self) -> None:
        assert not self.closed, "closed twice"
        self.closed = True


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "poems", sys.modules[__name__])
    OPENED.clear()


def poem(*lines: str) -> Task:
    return Task(id="ode", messages=(), environment="poems:Poem", payload={"lines": lines})


ODE = poem("a", "b", "c")


def exchange(text: str, seen: str) -> Exchange:
    return Exchange(reply=Reply(text=text), observation=Observation(messages=(Message(role="user", content=seen),)))


FIRST, SECOND = exchange("a", "1 of 3"), exchange("b", "2 of 3")


def worker(**env: Any) -> EnvWorker:
    return EnvWorker(EnvConfig.model_validate(env), "env-0")


def test_a_session_stays_open_from_turn_to_turn_and_is_closed_with_its_verdict() -> None:
    asked = worker(max_feedback_chars=200)
    assert asked.step("x", ODE, (), Reply(text="a")) == FIRST.observation
    assert asked.step("y", ODE, (), Reply(text="z")) == FIRST.observation, "sessions know nothing of each other"
    assert asked.step("x", ODE, (FIRST,), Reply(text="b")) == SECOND.observation
    verdict = asked.step("x", ODE, (FIRST, SECOND), Reply(text="c"))
    assert isinstance(verdict, Verdict)
    assert (verdict.reward, len(verdict.feedback)) == (1.0, 200)
    assert verdict.details["judge_s"] >= 0
    assert [session.closed for session in OPENED] == [True, False]
    asked.forget("y")
    asked.forget("y")
    assert OPENED[1].closed


def test_a_worker_that_does_not_know_the_session_plays_it_again() -> None:
    asked = worker()
    assert asked.step("x", ODE, (FIRST,), Reply(text="b")) == SECOND.observation
    verdict = asked.finish("x", ODE, (FIRST, SECOND), "tokens")
    assert (verdict.kind, verdict.feedback) == ("incomplete", "tokens: a/b")
    assert [session.closed for session in OPENED] == [True]
    verdict = asked.finish("x", ODE, (FIRST,), "time")
    assert verdict.feedback == "time: a"
    assert [session.closed for session in OPENED] == [True, True]


def test_a_session_that_is_elsewhere_in_the_attempt_is_not_used() -> None:
    """A call that the orchestrator gave up on went on, and left a session that is one turn ahead."""
    asked = worker()
    asked.step("x", ODE, (), Reply(text="a"))
    asked.step("x", ODE, (FIRST,), Reply(text="b"))
    assert asked.step("x", ODE, (FIRST,), Reply(text="b")) == SECOND.observation
    assert [session.closed for session in OPENED] == [True, False]


@pytest.mark.parametrize(
    "turn", [exchange("a", "one of three"), exchange("violate", "1 of 3"), exchange("c", "2 of 3")]
)
def test_an_answer_that_differs_when_played_again_is_infrastructure_and_no_reward(turn: Exchange) -> None:
    verdict = worker().step("x", ODE, (turn,), Reply(text="b"))
    assert isinstance(verdict, Verdict)
    assert verdict.reward is None
    assert verdict.feedback == ""
    assert verdict.infrastructure_error is not None
    assert "turn 0" in verdict.infrastructure_error
    assert "another way" in verdict.infrastructure_error
    assert OPENED[0].closed


def test_what_breaks_closes_the_session_and_the_next_call_plays_it_again() -> None:
    asked = worker()
    asked.step("x", ODE, (), Reply(text="a"))
    verdict = asked.step("x", ODE, (FIRST,), Reply(text="break"))
    assert isinstance(verdict, Verdict)
    assert verdict.infrastructure_error == "the stage collapsed"
    assert asked.step("x", ODE, (FIRST,), Reply(text="b")) == SECOND.observation
    with pytest.raises(EnvironmentFault, match="the author's own mistake"):
        asked.step("x", ODE, (FIRST, SECOND), Reply(text="boo"))
    assert [session.closed for session in OPENED] == [True, True]
    asked.close()


def test_sessions_end_with_their_time_and_make_room() -> None:
    now_s = [0.0]
    sessions = Sessions(Recital, ttl_s=10.0, limit=2, clock=lambda: now_s[0])

    def keep(name: str) -> Recital:
        session = sessions.take(name, ODE, ())
        assert isinstance(session, Recital)
        sessions.keep(name, session, ())
        return session

    first, second = keep("first"), keep("second")
    assert sessions.take("second", ODE, ()) is second
    sessions.keep("second", second, ())
    third = keep("third")
    assert (first.closed, second.closed, third.closed, len(sessions)) == (True, False, False, 2)
    now_s[0] = 9.0
    sessions.keep("second", sessions.take("second", ODE, ()), ())
    now_s[0] = 10.0
    sessions.sweep()
    assert (second.closed, third.closed) == (False, True)
    now_s[0] = 19.0
    fresh = sessions.take("second", ODE, ())
    assert fresh is second, "what is asked for is given as long as it is there"
    sessions.keep("second", second, ())
    sessions.sweep(everything=True)
    assert second.closed


def test_many_attempts_side_by_side_in_threads() -> None:
    asked, failures = worker(), list[str]()

    def attempt(name: str) -> None:
        history: tuple[Exchange, ...] = ()
        for text in "abc":
            answer = asked.step(name, ODE, history, Reply(text=text))
            if isinstance(answer, Observation):
                history = (*history, Exchange(reply=Reply(text=text), observation=answer))
        if not isinstance(answer, Verdict) or answer.reward != 1.0 or len(history) != 2:
            failures.append(name)

    threads = [threading.Thread(target=attempt, args=(str(n),)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert failures == []
    assert len(OPENED) == 16
    assert all(session.closed for session in OPENED)

"""Attempts to their verdicts: bounds, sessions that stay on their worker, and what dies on the way."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer

from env_workers.environment import Exchange, Observation, Reply
from examples.tinycoder.make_tasks import FOLDER
from orchestrator.actors.env_client import EnvClient
from orchestrator.actors.fleet import Fleet, Member
from orchestrator.actors.sampler import RolloutLost
from orchestrator.batch.attempts import Attempts
from orchestrator.batch.requests import AttemptRequest
from orchestrator.events import AttemptJudged, AttemptSampled, Event, listening
from orchestrator.group import AttemptRecord
from sdpo.chat import render_turn
from sdpo.config import RunConfig
from sdpo.errors import InfrastructureError
from sdpo.seeds import turn_seed
from sdpo.types import (
    FinishReason,
    GenerationRequest,
    Message,
    RolloutHeader,
    SamplingParams,
    Task,
    TurnRequest,
    Verdict,
    Version,
)
from tests.fixtures.fleets import supervised
from tests.fixtures.orchestrator import SilentSampler

TASK = Task(id="t", messages=(Message(role="user", content="?"),), environment="code", payload={})
PASSED = Verdict(reward=1.0, success=True, kind="passed")
FAILED = Verdict(reward=0.0, success=False, kind="wrong_answer", feedback="no")
BROKEN = Verdict(reward=None, success=False, kind="infrastructure_error", infrastructure_error="engine away")
GO_ON = Observation(messages=(Message(role="user", content="Go on."),))
TURN_END = 2
BUDGET_TOKENS = 100
GENERATION = GenerationRequest(
    task_id="t",
    prompt_ids=np.zeros(3, np.int32),
    sample_indices=(4, 5),
    seeds=(40, 50),
    sampling=SamplingParams(temperature=0.5, max_tokens=BUDGET_TOKENS),
    support_size=7,
)
REQUEST = AttemptRequest(task=TASK, generation=GENERATION, label="train-3", batch_index=3)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(FOLDER.parent / "model", local_files_only=True)


@pytest.fixture(autouse=True)
def _no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.kill", lambda handle: None)


class Method:
    """A remote method: `remote` answers at once with what can be awaited."""

    def __init__(self, answer: Callable[..., Any]) -> None:
        self.remote = answer


class StandIn:
    """An env worker. `answers` are given in turn to step and finish, the last one for ever; errors are raised."""

    def __init__(self, *answers: Any) -> None:
        self._answers = list(answers)
        self.asked: list[tuple[str, str, tuple[Exchange, ...], Any]] = []
        self.forgotten: list[str] = []
        self.step, self.finish = (Method(self._ask(name)) for name in ("step", "finish"))
        self.forget = Method(self.forgotten.append)

    def _ask(self, method: str) -> Callable[..., Any]:
        async def answer(
            attempt: str, task: Task, history: tuple[Exchange, ...], said: Any, batch_index: int | None
        ) -> Any:
            assert batch_index == 3
            self.asked.append((method, attempt, history, said))
            found = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
            if isinstance(found, float):
                await asyncio.sleep(found)
            if isinstance(found, Exception):
                raise found
            return found

        return answer


class Engines:
    """A sampler whose model says turn 0, turn 1, … in `turn_tokens` tokens each."""

    def __init__(self, turn_tokens: int = 10, lost_turns: Sequence[int] = (), endless_turn: int | None = None) -> None:
        """`endless_turn`: the number of the turn that never ends."""
        self._turn_tokens, self._lost, self._endless_turn = turn_tokens, list(lost_turns), endless_turn
        self.turns: list[tuple[TurnRequest, Any]] = []
        self.first_turns: list[GenerationRequest] = []

    def expect(self, task_ids: Sequence[str]) -> None: ...

    async def sample(self, request: GenerationRequest) -> AsyncIterator[tuple[RolloutHeader, Any]]:
        self.first_turns.append(request)
        for index in request.sample_indices:
            yield header(index), ("rollout", 1)

    async def extend(self, turn: TurnRequest, previous: Any) -> tuple[RolloutHeader, Any]:
        self.turns.append((turn, previous))
        number = previous[1]
        if number == self._endless_turn:
            await asyncio.Event().wait()
        if number in self._lost:
            self._lost.remove(number)
            raise RolloutLost("the node is gone")
        tokens = min(self._turn_tokens, turn.sampling.max_tokens)
        used = BUDGET_TOKENS - turn.sampling.max_tokens + tokens
        stopped = tokens < turn.sampling.max_tokens
        reply = f"turn {number}"
        told = replace(
            header(turn.sample_index),
            text=turn.transcript + reply,
            reply=reply,
            num_response_tokens=used,
            num_environment_tokens=len(turn.observation_ids),
            num_turns=number + 1,
            finish_reason=FinishReason.STOP if stopped else FinishReason.LENGTH,
        )
        return told, ("rollout", number + 1)


def header(index: int = 4) -> RolloutHeader:
    return RolloutHeader(
        task_id="t",
        sample_index=index,
        text="turn 0",
        reply="turn 0",
        num_prompt_tokens=3,
        num_response_tokens=10,
        num_environment_tokens=0,
        num_turns=1,
        last_token_id=TURN_END,
        finish_reason=FinishReason.STOP,
        versions=(Version(incarnation=1, batch=0),),
    )


async def play(
    tokenizer: Any,
    workers: Sequence[StandIn],
    engines: Engines | None = None,
    *,
    spares: Sequence[StandIn] = (),
    environment_s: float = 5,
    stacks: Path = Path("unused"),
    **env: Any,
) -> tuple[AttemptRecord, Fleet]:
    replacements = iter([*workers, *spares, *(StandIn(PASSED) for _ in range(5))])

    async def prepare(member: Member) -> None:
        await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        fleet = Fleet(
            "env",
            len(workers),
            spawn=lambda name: next(replacements),
            prepare=prepare,
            max_load=1,
            supervision=supervised(group, stacks=stacks),
        )
        await fleet.start()
        config = RunConfig.model_validate(
            {"env": {"retry_backoff_s": 0.001} | env, "deadlines": {"environment_s": environment_s}}
        )
        attempts = Attempts(config, tokenizer, engines or Engines(), partial(EnvClient, fleet, config))
        return await attempts.play(REQUEST, header(), ("rollout", 1)), fleet


def test_a_broken_worker_is_followed_by_another_one(tokenizer: Any) -> None:
    bad, good = StandIn(BROKEN), StandIn(PASSED)
    played, _ = asyncio.run(play(tokenizer, [bad, good]))
    assert played.verdict is PASSED
    assert (len(bad.asked), len(good.asked)) == (1, 1)


def test_after_max_attempts_the_verdict_carries_the_error_and_no_reward(
    tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses_s: list[float] = []
    sleep = asyncio.sleep

    async def note(seconds: float) -> None:
        if seconds >= 0.1:
            pauses_s.append(seconds)
        await sleep(0)

    monkeypatch.setattr("orchestrator.actors.env_client.asyncio.sleep", note)
    bad = StandIn(BROKEN)
    played, _ = asyncio.run(play(tokenizer, [bad], max_attempts=4, retry_backoff_s=0.1))
    assert len(bad.asked) == 4
    assert pauses_s == [0.1, 0.2, 0.4]
    assert played.verdict.reward is None
    assert played.verdict.feedback == ""
    assert played.verdict.infrastructure_error == "engine away"


def test_a_silent_worker_is_replaced_and_the_attempt_judged_by_the_next(tokenizer: Any, tmp_path: Path) -> None:
    silent = StandIn(60.0)
    played, fleet = asyncio.run(play(tokenizer, [silent], environment_s=0.05, stacks=tmp_path))
    assert "Thread 0x" in (tmp_path / "env-0-1" / "orchestrator.txt").read_text(), "stacks were kept"
    assert played.verdict is PASSED
    assert sum(member.starts for member in fleet.members) == 1


def test_turns_follow_each_other_on_the_sessions_worker_with_seeds_of_their_own(tokenizer: Any) -> None:
    holder, other = StandIn(GO_ON, GO_ON, PASSED), StandIn(FAILED)
    runs = []
    for _ in range(2):
        engines = Engines()
        played, _ = asyncio.run(play(tokenizer, [StandIn(GO_ON, GO_ON, PASSED), StandIn(FAILED)], engines))
        runs.append([turn.seed for turn, _ in engines.turns])
    assert runs[0] == runs[1] == [turn_seed(40, 1), turn_seed(40, 2)]

    engines = Engines()
    played, _ = asyncio.run(play(tokenizer, [holder, other], engines))
    assert played.verdict is PASSED
    assert (played.rollout, played.header.num_turns) == (("rollout", 3), 3)
    assert (
        played.header.text == "turn 0\n\n[user]\nGo on.\n\n[assistant]\nturn 1\n\n[user]\nGo on.\n\n[assistant]\nturn 2"
    )
    assert other.asked == []
    assert [(method, len(history), said.text) for method, _, history, said in holder.asked] == [
        ("step", 0, "turn 0"),
        ("step", 1, "turn 1"),
        ("step", 2, "turn 2"),
    ]
    assert len({attempt for _, attempt, _, _ in holder.asked}) == 1
    turn, previous = engines.turns[0]
    want = render_turn(tokenizer, TASK.messages, GO_ON.messages, stop_id=TURN_END)
    assert turn.observation_ids.tolist() == want.tolist()
    assert previous == ("rollout", 1), "a reference goes on, no tokens"
    assert (turn.task_id, turn.sample_index, turn.support_size) == ("t", 4, 7)
    assert turn.sampling == SamplingParams(temperature=0.5, max_tokens=BUDGET_TOKENS - 10 - len(want))


def test_a_worker_that_dies_between_turns_is_followed_by_one_that_hears_everything(tokenizer: Any) -> None:
    dying, next_one = StandIn(GO_ON, InfrastructureError("the actor died")), StandIn(GO_ON, PASSED)
    played, fleet = asyncio.run(play(tokenizer, [dying], spares=[next_one]))
    assert played.verdict is PASSED
    assert sum(member.starts for member in fleet.members) == 1
    first, second = (Exchange(reply=Reply(text=f"turn {n}"), observation=GO_ON) for n in (0, 1))
    assert [(history, said.text) for _, _, history, said in next_one.asked] == [
        ((first,), "turn 1"),
        ((first, second), "turn 2"),
    ]


@pytest.mark.parametrize(
    ("ending", "engines", "env", "turns"),
    [
        ("turns", Engines(), {"max_turns": 2}, 2),
        ("turns", Engines(), {"max_turns": 1}, 1),
        ("tokens", Engines(turn_tokens=60), {}, 2),
        ("tokens", Engines(turn_tokens=1000), {}, 2),
        ("time", Engines(endless_turn=2), {"attempt_s": 3.0}, 2),
    ],
    ids=["turns", "one turn", "no room for an observation", "cut in its second turn", "time"],
)
def test_a_bound_ends_the_attempt_with_the_turns_that_are_complete(
    tokenizer: Any, ending: str, engines: Engines, env: dict[str, Any], turns: int
) -> None:
    worker = StandIn(*[GO_ON] * turns, FAILED)
    played, _ = asyncio.run(play(tokenizer, [worker], engines, **env))
    assert played.verdict is FAILED
    method, _, history, said = worker.asked[-1]
    assert (method, said, len(history)) == ("finish", ending, turns)
    assert (played.header.num_turns, played.rollout) == (turns, ("rollout", turns))
    assert played.header.num_response_tokens <= BUDGET_TOKENS
    assert history[-1].reply.truncated == (played.header.finish_reason is FinishReason.LENGTH)


def test_an_observation_gets_half_of_the_tokens_that_are_left(tokenizer: Any) -> None:
    long = Observation(messages=(Message(role="user", content="word " * 500 + "end"),))
    worker, engines = StandIn(long, PASSED), Engines()
    played, _ = asyncio.run(play(tokenizer, [worker], engines))
    turn, _ = engines.turns[0]
    assert 40 <= len(turn.observation_ids) <= 45
    assert turn.sampling.max_tokens == 90 - len(turn.observation_ids)
    assert "[user]\nword w" in played.header.text
    assert "\n[...]\n" in played.header.text
    assert worker.asked[1][2][0].observation is long, "the environment hears its own words"


def test_lost_tokens_are_sampled_again_from_the_first_turn_with_the_same_seeds(tokenizer: Any) -> None:
    worker, engines = StandIn(GO_ON, GO_ON, GO_ON, PASSED), Engines(lost_turns=[2])
    played, _ = asyncio.run(play(tokenizer, [worker], engines))
    assert played.verdict is PASSED
    assert [(r.sample_indices, r.seeds) for r in engines.first_turns] == [((4,), (40,))]
    assert [turn.seed for turn, _ in engines.turns] == [turn_seed(40, n) for n in (1, 2, 1)]
    names = list(dict.fromkeys(attempt for _, attempt, _, _ in worker.asked))
    assert len(names) == 2
    assert worker.forgotten == names[:1]
    assert [len(history) for _, _, history, _ in worker.asked] == [0, 1, 0, 1]

    hopeless = Engines(lost_turns=[1, 1, 1])
    played, _ = asyncio.run(play(tokenizer, [StandIn(GO_ON)], hopeless, max_attempts=3))
    assert played.verdict.infrastructure_error == "the node is gone"
    assert len(hopeless.first_turns) == 2


def test_attempts_of_a_request_are_played_as_they_end_and_returned_by_index(tokenizer: Any) -> None:
    async def scenario() -> tuple[list[int], list[str], dict[str, float]]:
        events, heard = list[str](), list[Event]()

        class Session:
            """The attempt that ends first has the slowest environment."""

            def __init__(self, name: str, batch_index: int | None, task: Task) -> None:
                assert (batch_index, task) == (3, TASK)
                self._index = int(name.split("/")[2])

            async def step(self, history: Any, reply: Reply) -> Verdict:
                await asyncio.sleep(0.03 if self._index == 5 else 0.01)
                return PASSED

            async def finish(self, history: Any, ending: Any) -> Verdict:
                raise AssertionError

            def forget(self) -> None:
                raise AssertionError

        sampler, seconds = SilentSampler(lambda indices: indices[::-1]), dict[str, float]()
        attempts = Attempts(RunConfig(), tokenizer, sampler, Session)
        with listening(heard.append):
            records = await attempts.play_all(
                REQUEST,
                on_judged=lambda record: events.append(f"judged {record.header.sample_index}"),
                seconds=seconds,
            )
        assert [type(event) for event in heard] == [AttemptSampled, AttemptSampled, AttemptJudged, AttemptJudged]
        assert all(event.batch_index == 3 for event in heard)  # type: ignore[attr-defined]
        assert all(record.task is TASK and record.verdict is PASSED for record in records)
        return [record.header.sample_index for record in records], events, seconds

    indices, events, seconds = asyncio.run(scenario())
    assert indices == [4, 5]
    assert events == ["judged 4", "judged 5"]
    assert 0 <= seconds["generate"] < 0.03 <= seconds["wait_environment"] + 0.005

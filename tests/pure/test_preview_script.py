"""The scripted model and the environment of a preview, played by the attempts' own player."""

import asyncio
from typing import Any

import numpy as np
import pytest

from env_workers.environment import Observation, Reply
from orchestrator.batch.attempts import Attempts
from orchestrator.batch.requests import evaluation_request
from orchestrator.commands.preview.script import LocalSession, ScriptedSampler, Text
from orchestrator.group import AttemptRecord
from sdpo.types import Message, Verdict
from tests.fixtures.orchestrator import FAILED, PASSED, Words, config_of, task_of

TASK = task_of("t")
GO_ON = Observation(messages=(Message(role="user", content="Go on."),))


class Worker:
    """An env worker that lets the model say `num_turns` turns."""

    def __init__(self, num_turns: int) -> None:
        self._num_turns = num_turns
        self.said: list[str] = []

    def step(self, attempt: str, task: Any, history: tuple[Any, ...], reply: Reply) -> Observation | Verdict:
        self.said.append(reply.text)
        return PASSED if len(history) + 1 == self._num_turns else GO_ON

    def finish(self, attempt: str, task: Any, history: tuple[Any, ...], ending: str) -> Verdict:
        return FAILED


def play(
    answers: list[str], num_turns: int, max_tokens: int = 200, max_turns: int = 8
) -> tuple[AttemptRecord, ScriptedSampler, LocalSession]:
    config = config_of(env={"max_turns": max_turns}, rollout={"sampling": {"max_response_tokens": max_tokens}})
    sampler = ScriptedSampler([Text(text=text, length=len(text)) for text in answers], stop_id=3)
    worker: Any = Worker(num_turns)
    session = LocalSession(worker, "preview", TASK)
    attempts = Attempts(config, Words(), sampler, lambda *_: session)
    request = evaluation_request(config, TASK, np.arange(3, dtype=np.int32), [1], "preview")
    (record,) = asyncio.run(attempts.play_all(request))
    assert worker.said == answers[: record.header.num_turns]
    return record, sampler, session


def test_answers_are_said_turn_by_turn_to_the_verdict() -> None:
    record, sampler, session = play(["one", "three", "unused"], num_turns=2)
    assert record.verdict is PASSED
    assert record.header.text == "one\n\n[user]\nGo on.\n\n[assistant]\nthree"
    assert (record.header.sample_index, record.header.num_turns, record.header.reply) == (1, 2, "three")
    observed = record.header.num_environment_tokens
    assert record.header.num_response_tokens == 3 + observed + 5
    assert sampler.limits == [200, 200 - 3 - observed]
    assert (sampler.is_over, session.ending, session.observations) == (False, None, [GO_ON])


@pytest.mark.parametrize(
    ("bounds", "ending", "is_over"),
    [({}, "tokens", True), ({"max_turns": 1}, "turns", False), ({"max_tokens": 20}, "tokens", False)],
)
def test_an_attempt_ends_at_its_bounds_or_with_its_script(bounds: dict[str, int], ending: str, is_over: bool) -> None:
    record, sampler, session = play(["one"], num_turns=2, **bounds)
    assert record.verdict is FAILED
    assert (session.ending, sampler.is_over) == (ending, is_over)

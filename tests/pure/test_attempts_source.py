"""Attempts that are sampled now: one request for each task, judged attempts by index, events for readers."""

import asyncio
from typing import Any

import pytest

from orchestrator.batch.attempts import Attempts
from orchestrator.events import AttemptJudged, AttemptSampled, Event, listening
from orchestrator.group import AttemptRecord
from tests.fixtures.orchestrator import PASSED, SilentSampler, Words, config_of, task_of


def test_the_attempts_of_a_batch_are_sampled_and_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    async def play(attempts: Any, request: Any, header: Any, rollout: Any) -> AttemptRecord:
        await asyncio.sleep(0.01 * header.sample_index)
        return AttemptRecord(task=request.task, header=header, rollout=rollout, verdict=PASSED)

    monkeypatch.setattr("orchestrator.batch.attempts.Attempts.play", play)
    sampler, events, seconds = SilentSampler(lambda indices: indices[::-1]), list[Event](), dict[str, float]()
    open_session: Any = None
    source = Attempts(config_of(batch={"samples_per_task": 3}), Words(), sampler, open_session)
    source.expect(["a", "b"])
    with listening(events.append):
        attempts = asyncio.run(source.judged(5, task_of("a"), seconds))
    assert sampler.expected == [["a", "b"]]
    assert [request.task_id for request in sampler.requests] == ["a"]
    assert [attempt.header.sample_index for attempt in attempts] == [0, 1, 2]
    assert [attempt.rollout.value for attempt in attempts] == ["a/0", "a/1", "a/2"]
    assert seconds.keys() == {"generate", "wait_environment"}
    sampled = [event for event in events if isinstance(event, AttemptSampled)]
    judged = [event for event in events if isinstance(event, AttemptJudged)]
    assert [event.batch_index for event in sampled] == [event.batch_index for event in judged] == [5, 5, 5]
    assert [event.header.sample_index for event in judged] == [0, 1, 2]

"""Held-out evaluation: prompts, order, repairs, and the end of one that loses too much to infrastructure."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from orchestrator.batch.attempts import Attempts
from orchestrator.batch.evaluator import Evaluator, means_of_tasks
from orchestrator.batch.requests import AttemptRequest
from orchestrator.events import AttemptJudged, Event, listening
from orchestrator.group import AttemptRecord
from sdpo.errors import InfrastructureError
from sdpo.types import Verdict
from tests.fixtures.orchestrator import FAILED, LOST, PASSED, SilentSampler, Words, config_of, judged, task_of

CONFIG = config_of(evaluation={"samples_per_task": 2}, rollout={"max_num_seqs": 2})
TASKS = [task_of(str(i)) for i in range(5)]


class Evaluating:
    """An evaluator without actors; `verdict_of` gives the verdict by task number."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *verdicts: Verdict, config: Any = CONFIG) -> None:
        self.sampler = SilentSampler(lambda indices: indices[::-1])
        self.seen: list[Event] = []
        self.most_at_once = self._at_once = 0

        async def play(attempts: Any, request: AttemptRequest, header: Any, rollout: Any) -> AttemptRecord:
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
            await asyncio.sleep(0.01)
            self._at_once -= 1
            verdict = verdicts[int(request.task.id)]
            return AttemptRecord(task=request.task, header=header, rollout=rollout, verdict=verdict)

        monkeypatch.setattr("orchestrator.batch.attempts.Attempts.play", play)
        open_session: Any = None
        self.evaluator = Evaluator(config, Words(), Attempts(config, Words(), self.sampler, open_session))

    def evaluate(self) -> list[AttemptRecord]:
        with listening(self.seen.append):
            return asyncio.run(self.evaluator.evaluate(TASKS))

    def repair(self, attempts: Sequence[AttemptRecord]) -> list[AttemptRecord]:
        return asyncio.run(self.evaluator.repair(attempts))


def test_attempts_come_by_task_and_index_with_the_same_seeds_every_time(monkeypatch: pytest.MonkeyPatch) -> None:
    evaluating = Evaluating(monkeypatch, *[PASSED, FAILED] * 3)
    records = evaluating.evaluate()
    assert [(r.task.id, r.header.sample_index) for r in records] == [(t.id, i) for t in TASKS for i in (0, 1)]
    assert evaluating.sampler.expected == [[task.id for task in TASKS]]
    announced = [event for event in evaluating.seen if isinstance(event, AttemptJudged)]
    assert sorted(id(e.header) for e in announced) == sorted(id(r.header) for r in records), "each one once"
    assert {event.batch_index for event in announced} == {None}
    assert means_of_tasks(records, lambda record: record.verdict.success) == [1.0, 0.0, 1.0, 0.0, 1.0]
    seeds = [request.seeds for request in evaluating.sampler.requests]
    assert len(set(seeds)) == 5
    evaluating.evaluate()
    assert [request.seeds for request in evaluating.sampler.requests[5:]] == seeds


@pytest.mark.parametrize(("deterministic", "most"), [(False, 4), (True, 10)])
def test_twice_what_the_engines_decode_is_admitted(
    deterministic: bool, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = CONFIG.model_copy(update={"deterministic": deterministic})
    evaluating = Evaluating(monkeypatch, *[PASSED] * 5, config=config)
    evaluating.evaluate()
    assert evaluating.most_at_once == most


def test_failures_with_feedback_are_sampled_once_more_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    silent = Verdict(reward=0.0, success=False, kind="wrong_answer", feedback=" ")
    first = [judged(TASKS[i], 1, verdict) for i, verdict in enumerate([PASSED, FAILED, silent, LOST, FAILED])]
    evaluating = Evaluating(monkeypatch, *[PASSED] * 5)
    repaired = evaluating.repair(first)
    assert [(r.task.id, r.header.sample_index) for r in repaired] == [("1", 1), ("4", 1)]
    prompt = "".join(map(chr, evaluating.sampler.requests[0].prompt_ids.tolist()))
    assert "Feedback from your unsuccessful earlier attempt:\nno" in prompt


@pytest.mark.parametrize(("num_lost", "refused"), [(1, False), (2, True)])
def test_an_evaluation_that_lost_too_much_is_no_result(
    num_lost: int, refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluating = Evaluating(monkeypatch, *[LOST if i < num_lost else PASSED for i in range(5)])
    if refused:
        with pytest.raises(InfrastructureError, match=r"30% of an evaluation's attempts.*the engine is away"):
            evaluating.evaluate()
    else:
        assert len(evaluating.evaluate()) == 10

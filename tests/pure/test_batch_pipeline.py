"""From a task to a group: lost attempts, advantages, hindsight prompts, and when the teacher is asked."""

import asyncio
from typing import Any

from orchestrator.batch.pipeline import GroupPipeline, drop_lost
from orchestrator.batch.step_metrics import batch_metrics
from orchestrator.group import AttemptRecord, Group
from sdpo.types import Task, Verdict, Version
from tests.fixtures.orchestrator import FAILED, LOST, PASSED, Words, config_of, judged, task_of

TASK, VERSION = task_of("t"), Version(incarnation=1, batch=4)


def group_of(*verdicts: Verdict) -> Group:
    group = Group(batch_index=0, index=0, task=TASK, attempts=[])
    drop_lost(group, [judged(TASK, i, verdict) for i, verdict in enumerate(verdicts)], min_group_size=2)
    return group


def test_broken_attempts_are_dropped_and_a_group_that_shrank_too_far_is_dropped_whole() -> None:
    kept = group_of(PASSED, LOST, PASSED)
    assert [a.header.sample_index for a in kept.attempts] == [0, 2]
    assert [a.header.sample_index for a in kept.dropped] == [1]
    gone = group_of(PASSED, LOST, LOST)
    assert gone.attempts == []
    assert len(gone.dropped) == 3
    metrics = batch_metrics([kept, gone], advantage_is_signal=False)
    assert metrics["attempts/sampled"] == metrics["attempts/judged"] + metrics["attempts/dropped"] == 6
    assert metrics["rollout/reward"] == 1.0, "what was dropped is no reward of 0"


class Source:
    """Gives attempts with these verdicts, whose texts are `words 0`, `words 1`, …"""

    def __init__(self, *verdicts: Verdict) -> None:
        self._verdicts = verdicts
        self.asked: list[tuple[int, str]] = []

    def expect(self, task_ids: Any) -> None: ...

    async def judged(self, batch_index: int, task: Task, seconds: dict[str, float]) -> list[AttemptRecord]:
        self.asked.append((batch_index, task.id))
        seconds["generate"] = 1.5
        return [judged(task, i, verdict, text=f"words {i}") for i, verdict in enumerate(self._verdicts)]


class Scorer:
    def __init__(self) -> None:
        self.asked: list[tuple[int, Version]] = []

    async def on_verdicts(self, group: Group, version: Version) -> None:
        self.asked.append((group.index, version))


def run(*verdicts: Verdict, **sections: Any) -> tuple[Group, Source, Scorer]:
    source, scorer = Source(*verdicts), Scorer()
    pipeline = GroupPipeline(config_of(**sections), Words(), source, scorer)  # type: ignore[arg-type]
    return asyncio.run(pipeline.run(6, 2, TASK, VERSION)), source, scorer


def test_a_group_gets_advantages_and_hindsight_and_its_teacher_is_asked() -> None:
    group, source, scorer = run(FAILED, PASSED, LOST, FAILED)
    assert (group.batch_index, group.index, source.asked) == (6, 2, [(6, "t")])
    assert [a.header.sample_index for a in group.attempts] == [0, 1, 3]
    assert group.attempts[1].advantage > 0 > group.attempts[0].advantage == group.attempts[2].advantage
    first, success, last = (a.hindsight for a in group.attempts)
    assert first is not None
    assert success is not None
    assert last is not None
    assert (first.demo_from, success.demo_from, last.demo_from) == (1, None, 1)
    assert "words 1" in "".join(map(chr, first.token_ids.tolist()))
    assert [a.has_signal for a in group.attempts] == [True, False, True]
    assert scorer.asked == [(2, VERSION)]
    assert group.seconds["generate"] == 1.5
    assert group.seconds["group"] >= 0


def test_a_group_that_shrank_too_far_asks_no_teacher() -> None:
    group, _, scorer = run(PASSED, LOST, LOST, batch={"min_group_size": 2})
    assert group.attempts == []
    assert len(group.dropped) == 3
    assert scorer.asked == []


def test_an_objective_without_a_teacher_needs_no_hindsight() -> None:
    group, _, _ = run(FAILED, PASSED, objective={"kind": "grpo"})
    assert [a.hindsight for a in group.attempts] == [None, None]
    assert group.attempts[1].advantage > 0

"""Infrastructure failures: tried again elsewhere, then dropped and counted; never a reward and never feedback."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.fleet import Fleet, Member
from orchestrator.group import AttemptRecord, Group
from orchestrator.judging import judge
from orchestrator.loop import refuse_a_broken_world
from orchestrator.measure import batch_metrics
from orchestrator.pipeline import drop_broken
from sdpo.config import RunConfig
from sdpo.errors import InfrastructureError
from sdpo.types import FinishReason, Message, RolloutHeader, Task, Verdict

TASK = Task(id="t", messages=(Message(role="user", content="?"),), environment="code", payload={})
PASSED = Verdict(reward=1.0, success=True, kind="passed")
BROKEN = Verdict(reward=None, success=False, kind="infrastructure_error", infrastructure_error="engine away")


class StandIn:
    """An env worker whose verdicts, or silence, are given."""

    def __init__(self, answer: Callable[[], Any]) -> None:
        self.judge = self
        self._answer, self.num_calls = answer, 0

    def remote(self, *_: Any) -> Any:
        self.num_calls += 1
        return self._answer()


async def says(verdict: Verdict) -> Verdict:
    return verdict


def header(index: int = 0) -> RolloutHeader:
    return RolloutHeader(
        task_id="t",
        sample_index=index,
        text="",
        num_prompt_tokens=3,
        num_response_tokens=2,
        finish_reason=FinishReason.STOP,
        versions=("1.0",),
    )


async def judged(
    workers: list[StandIn], monkeypatch: pytest.MonkeyPatch, stacks: Path = Path("unused"), **limits: Any
) -> tuple[Verdict, Fleet]:
    monkeypatch.setattr("ray.kill", lambda handle: None)
    replacements = iter([*workers, *(StandIn(lambda: says(PASSED)) for _ in range(5))])

    async def prepare(member: Member) -> None:
        await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        fleet = Fleet(
            "env",
            len(workers),
            spawn=lambda name: next(replacements),
            prepare=prepare,
            max_load=1,
            max_restarts=3,
            lease_timeout_s=5,
            stacks=stacks,
            background=group,
        )
        await fleet.start()
        settings = {"max_attempts": 3, "timeout_s": 5} | limits
        config = RunConfig.model_validate(
            {"env": {"max_attempts": settings["max_attempts"]}, "deadlines": {"environment_s": settings["timeout_s"]}}
        )
        return await judge(fleet, TASK, header(), config), fleet


def test_a_broken_worker_is_followed_by_another_one(monkeypatch: pytest.MonkeyPatch) -> None:
    bad, good = StandIn(lambda: says(BROKEN)), StandIn(lambda: says(PASSED))
    verdict, _ = asyncio.run(judged([bad, good], monkeypatch))
    assert verdict is PASSED
    assert (bad.num_calls, good.num_calls) == (1, 1)


def test_after_max_attempts_the_verdict_carries_the_error_and_no_reward(monkeypatch: pytest.MonkeyPatch) -> None:
    bad = StandIn(lambda: says(BROKEN))
    verdict, _ = asyncio.run(judged([bad], monkeypatch, max_attempts=3))
    assert bad.num_calls == 3
    assert verdict.reward is None
    assert verdict.feedback == ""
    assert verdict.infrastructure_error == "engine away"


def test_a_silent_worker_is_replaced_and_the_attempt_judged_by_the_next(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    silent = StandIn(lambda: asyncio.sleep(60))
    verdict, fleet = asyncio.run(judged([silent], monkeypatch, tmp_path, timeout_s=0.05))
    assert "Thread 0x" in (tmp_path / "env-0-1" / "orchestrator.txt").read_text(), "stacks were kept"
    assert verdict is PASSED
    assert fleet.num_restarts == 1


def group_of(*verdicts: Verdict) -> Group:
    group = Group(step=0, index=0, task=TASK, attempts=[])
    records = [AttemptRecord(header=header(i), rollout=None, verdict=v) for i, v in enumerate(verdicts)]
    drop_broken(group, records, min_group_size=2)
    return group


def test_broken_attempts_are_dropped_and_a_group_that_shrank_too_far_is_dropped_whole() -> None:
    kept = group_of(PASSED, BROKEN, PASSED)
    assert [a.header.sample_index for a in kept.attempts] == [0, 2]
    assert [a.header.sample_index for a in kept.dropped] == [1]
    gone = group_of(PASSED, BROKEN, BROKEN)
    assert gone.attempts == []
    assert len(gone.dropped) == 3
    metrics = batch_metrics([kept, gone], advantage_is_signal=False)
    assert metrics["attempts/sampled"] == metrics["attempts/judged"] + metrics["attempts/dropped"] == 6
    assert metrics["rollout/reward"] == 1.0, "what was dropped is no reward of 0"


def test_a_run_whose_world_is_broken_stops() -> None:
    refuse_a_broken_world(0.2, RunConfig())
    with pytest.raises(InfrastructureError, match=r"21% of a batch's attempts.*env\.max_dropped_fraction=20%"):
        refuse_a_broken_world(0.21, RunConfig())

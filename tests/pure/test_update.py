"""From judged groups to new weights, with actors replaced by plain objects: who is asked what, and when."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator.actors.teacher_client import GroupScorer
from orchestrator.batch.update import train_and_publish
from orchestrator.group import AttemptRecord
from sdpo.config import RunConfig
from sdpo.types import Version
from tests.fixtures.orchestrator import OneTeacher, Ref, RemoteMethod, config_of, group, values_of

VERSION, NEXT = Version(incarnation=0, batch=3), Version(incarnation=0, batch=4)
STUDENT = {"kind": "sdpo", "support": "student", "top_k": 4}
ROLLOUT = {"kind": "sdpo", "support": "rollout", "top_k": 4}
MIX = ROLLOUT | {"grpo_weight": 0.2}
GRPO = {"kind": "grpo"}


class RunActors:
    """The part of `RunActors` that `train_and_publish` uses; every event names whether the weights were locked."""

    def __init__(self, config: RunConfig) -> None:
        self.config, self.teachers = config, OneTeacher()
        self.events: list[str] = []
        self.trained: list[list[str]] = []
        self.scorer = GroupScorer(config, self.teachers)  # type: ignore[arg-type]
        self.publisher = SimpleNamespace(versions={"policy": VERSION})
        self._weights = asyncio.Lock()
        self.teacher_version, self.gang = VERSION, self

    def _note(self, event: str) -> None:
        self.events.append(f"{event} {'locked' if self._weights.locked() else 'free'}")

    @asynccontextmanager
    async def exclusive_weights(self) -> AsyncIterator[None]:
        async with self._weights:
            yield

    async def compute_old_log_probs(self, version: Version, attempts: Sequence[AttemptRecord]) -> list[Ref]:
        assert version == VERSION
        self._note("old_log_probs")
        return [Ref(f"pi({a.rollout.value})") for a in attempts]

    async def train(self, batch_index: int, groups: Sequence[Sequence[AttemptRecord]]) -> dict[str, float]:
        self._note("train")
        self.trained = [[a.rollout.value for a in attempts] for attempts in groups]
        return {"loss": 1.0}

    async def update_teacher(self) -> None:
        self._note("update_teacher")

    async def sync(self, version: Version) -> dict[Any, Any]:
        assert version == NEXT
        self._note("sync")
        return {}


PUBLISHED = ["update_teacher locked", "sync locked"]


@pytest.mark.parametrize(
    ("objective", "mini_batch_tasks", "recalled", "trained"),
    [
        (ROLLOUT, None, None, [["0.0"], [], ["2.0", "2.1"]]),
        (ROLLOUT, 1, ["0.0", "2.0", "2.1"], [["0.0"], [], ["2.0", "2.1"]]),
        (STUDENT, None, ["0.0", "2.0", "2.1"], [["0.0"], [], ["2.0", "2.1"]]),
        (MIX, 1, ["0.0", "0.1", "2.0", "2.1"], [["0.0", "0.1"], [], ["2.0", "2.1"]]),
        (GRPO, None, None, [["0.0", "0.1"], [], ["2.0", "2.1"]]),
    ],
)
def test_an_update_recalls_scores_trains_and_publishes(
    objective: dict[str, Any], mini_batch_tasks: int | None, recalled: list[str] | None, trained: list[list[str]]
) -> None:
    batch = {"tasks": 3, "mini_batch_tasks": mini_batch_tasks}
    actors = RunActors(config_of(objective=objective, batch=batch))
    groups = [group(0, [True, False]), group(1, []), group(2, [True, True])]
    metrics = asyncio.run(train_and_publish(actors, 3, groups, NEXT))  # type: ignore[arg-type]
    assert actors.events == [*(["old_log_probs locked"] if recalled else []), "train locked", *PUBLISHED]
    assert actors.trained == trained, "an empty group keeps its place"
    assert values_of(groups, "policy") == {name: f"pi({name})" for name in recalled or []}
    assert metrics["attempts/trained"] == sum(map(len, trained))
    assert metrics["train/loss"] == 1.0
    waits = objective is STUDENT
    asked = [("score", ("0.0", "pi(0.0)")), ("score", ("2.0", "2.1", "pi(2.0)", "pi(2.1)"))]
    assert actors.teachers.calls == (asked if waits else [])
    assert ("time/score_s" in metrics) == waits


def test_scores_that_wait_for_the_policy_are_asked_for_with_the_weights_free() -> None:
    """A teacher that dies then comes back by taking the weights, which needs the lock."""
    actors = RunActors(config_of(objective=STUDENT))
    answer = actors.teachers.handle.score.answer

    def asked(*arguments: Any) -> Any:
        actors._note("score")
        return answer(*arguments)

    actors.teachers.handle.score = RemoteMethod(asked)
    asyncio.run(train_and_publish(actors, 3, [group(0, [True]), group(1, [True])], NEXT))  # type: ignore[arg-type]
    assert actors.events == ["old_log_probs locked", "score free", "score free", "train locked", *PUBLISHED]


def test_a_batch_without_a_signal_trains_nothing_and_still_publishes() -> None:
    actors = RunActors(config_of(objective=STUDENT))
    metrics = asyncio.run(train_and_publish(actors, 3, [group(0, [False])], NEXT))  # type: ignore[arg-type]
    assert actors.events == PUBLISHED
    assert metrics["attempts/trained"] == 0

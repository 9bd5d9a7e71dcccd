"""The calls that the learner's ranks get: which attempts, in which micro-batches, and how long they may take."""

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import RayActorError, RayTaskError

from learner.messages import OldLogProbsRequest, TrainRequest
from orchestrator.actors.learner_gang import LearnerGang
from sdpo.errors import LearnerDied, StageTimeout
from sdpo.types import Version
from tests.fixtures.orchestrator import Ref, RemoteMethod, config_of, group

VERSION = Version(incarnation=0, batch=3)


def gang_of(ranks: Sequence[Any], **sections: Any) -> LearnerGang:
    gang = LearnerGang(config_of(**sections), "unused")
    gang._ranks = list(ranks)
    return gang


class RecordingRank:
    """Keeps what it was asked; recalls the policy of rollout x as `pi(x)`."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, tuple[Any, ...]]] = []
        self.train = RemoteMethod(self._train)
        self.compute_old_log_probs = RemoteMethod(self._compute_old_log_probs)

    def _train(self, request: TrainRequest, *objects: Any) -> dict[str, float]:
        self.asked.append((request, objects))
        return {"loss": 1.0}

    def _compute_old_log_probs(self, request: OldLogProbsRequest, *rollouts: Any) -> list[Any]:
        self.asked.append((request, rollouts))
        return ["receipt", *(f"pi({rollout})" for rollout in rollouts)]


@pytest.mark.parametrize("ranks", [1, 2, 7])
def test_recall_answers_in_the_order_of_the_attempts(ranks: int) -> None:
    members = [RecordingRank() for _ in range(ranks)]
    attempts = [a for g in (group(0, [True] * 3), group(1, [True] * 2)) for a in g.attempts]
    gang = gang_of(members, learner={"tokens_per_micro_batch": 40})
    found = asyncio.run(gang.compute_old_log_probs(VERSION, attempts))
    assert [ref.value for ref in found] == ["pi(0.0)", "pi(0.1)", "pi(0.2)", "pi(1.0)", "pi(1.1)"]
    requests = [member.asked[0][0] for member in members]
    assert {r.version for r in requests} == {VERSION}
    assert len({len(r.micro_batches) for r in requests}) == 1, "every rank runs the same number of forwards"
    for request, (_, rollouts) in zip(requests, (m.asked[0] for m in members), strict=True):
        assert sorted(i for part in request.micro_batches for i in part) == list(range(len(rollouts)))


def sent(member: RecordingRank) -> list[list[list[list[str]]]]:
    """[mini-batch][micro-batch][attempt] -> the objects that travelled with it, its advantage last."""
    request, objects = member.asked[0]
    stream, found = iter(objects), []
    for names, advantage in zip(request.attached, request.advantages, strict=True):
        found.append([next(stream), *(f"{name}={next(stream)}" for name in names), str(advantage)])
    assert list(stream) == []
    return [[[found[i] for i in part] for part in mini_batch] for mini_batch in request.mini_batches]


@pytest.mark.parametrize("ranks", [1, 2])
def test_mini_batches_are_whole_groups_in_the_order_of_the_batch(ranks: int) -> None:
    groups = [group(0, [True] * 3), group(1, [True] * 2), group(2, []), group(3, [True])]
    for i, a in enumerate(a for g in groups for a in g.attempts):
        a.advantage = float(i)
        a.scores, a.policy = Ref(f"q{i}") if i % 2 else None, Ref(f"pi{i}")
        a.reference = Ref(f"ref{i}") if i > 2 else None
    members = [RecordingRank() for _ in range(ranks)]
    gang = gang_of(members, batch={"tasks": 4, "mini_batch_tasks": 2}, learner={"tokens_per_micro_batch": 30})
    assert asyncio.run(gang.train(3, [g.attempts for g in groups])) == {"loss": 1.0}
    plans = [sent(member) for member in members]
    assert all(len({len(plan[m]) for plan in plans}) == 1 for m in range(2)), "micro-batches of a step"
    steps = [sorted(a for plan in plans for part in plan[m] for a in part) for m in range(2)]
    assert steps == [
        [
            ["0.0", "policy=pi0", "0.0"],
            ["0.1", "scores=q1", "policy=pi1", "1.0"],
            ["0.2", "policy=pi2", "2.0"],
            ["1.0", "scores=q3", "policy=pi3", "reference=ref3", "3.0"],
            ["1.1", "policy=pi4", "reference=ref4", "4.0"],
        ],
        [["3.0", "scores=q5", "policy=pi5", "reference=ref5", "5.0"]],
    ]


def test_the_deadline_counts_for_each_optimizer_step() -> None:
    async def forever() -> None:
        await asyncio.sleep(5)

    slow = SimpleNamespace(train=RemoteMethod(lambda *_: forever()), ping=failing(None))
    batch = {"tasks": 3, "mini_batch_tasks": 1}
    gang = gang_of([slow], batch=batch, deadlines={"train_s": 0.01})
    with pytest.raises(StageTimeout, match=r"learner-rank0 did not finish train within 0\.03 s"):
        asyncio.run(gang.train(0, [group(i, [True]).attempts for i in range(3)]))


def failing(error: Exception | None) -> Any:
    async def call(*arguments: Any) -> None:
        if error is not None:
            raise error

    return RemoteMethod(lambda *arguments: call(*arguments))


def task_error(cause: Exception) -> RayTaskError:
    return RayTaskError("train", str(cause), cause)


DEAD = RayActorError(error_msg="the actor died")
RESET = task_error(RuntimeError("[gloo/transport/tcp/pair.cc:534] Connection closed by peer"))
OTHER = task_error(RuntimeError("DeepSpeed: engine is in a bad state"))
LATE = StageTimeout("learner-rank0", "train", 1.0)


@pytest.mark.parametrize("first", [RESET, OTHER, LATE], ids=["collective", "engine", "deadline"])
def test_the_error_of_a_survivor_is_a_death_of_the_gang(first: Exception) -> None:
    survivor = SimpleNamespace(update_teacher=failing(first), ping=failing(None))
    victim = SimpleNamespace(update_teacher=RemoteMethod(lambda *_: asyncio.sleep(60)), ping=failing(DEAD))
    with pytest.raises(LearnerDied, match="the actor died"):
        asyncio.run(gang_of([survivor, victim]).update_teacher())


@pytest.mark.parametrize(("first", "raised"), [(RESET, LearnerDied), (OTHER, RayTaskError), (LATE, StageTimeout)])
def test_without_a_death_only_a_broken_process_group_is_one(first: Exception, raised: type[Exception]) -> None:
    ranks = [SimpleNamespace(update_teacher=failing(first), ping=failing(None)) for _ in range(2)]
    with pytest.raises(raised):
        asyncio.run(gang_of(ranks).update_teacher())

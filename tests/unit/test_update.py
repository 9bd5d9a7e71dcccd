"""From judged groups to the learner's calls, with actors replaced by plain objects: who is asked what, and when."""

import asyncio
from collections.abc import Sequence
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import ActorDiedError

import orchestrator.loop
from learner.messages import RecallRequest, TrainRequest
from orchestrator.group import AttemptRecord, Group
from orchestrator.learner_gang import LearnerGang
from orchestrator.progress import NOBODY
from orchestrator.scoring import GroupScorer
from orchestrator.update import update
from sdpo.config import RunConfig
from sdpo.errors import StageTimeout
from sdpo.types import Version
from tests.orchestrator_fixtures import Ref, RemoteMethod, config_of, group

VERSION, NEXT = Version(incarnation=0, batch=3), Version(incarnation=0, batch=4)
STUDENT = {"kind": "sdpo", "support": "student", "top_k": 4}
ROLLOUT = {"kind": "sdpo", "support": "rollout", "top_k": 4}
MIX = ROLLOUT | {"grpo_weight": 0.2}
GRPO = {"kind": "grpo"}


def gang_of(ranks: Sequence[Any], **sections: Any) -> LearnerGang:
    gang = LearnerGang(config_of(**sections), "unused")
    gang._ranks = list(ranks)
    return gang


class RecordingRank:
    """Keeps what it was asked; recalls the policy of rollout x as `pi(x)`."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, tuple[Any, ...]]] = []
        self.train = RemoteMethod(self._train)
        self.recall = RemoteMethod(self._recall)

    def _train(self, request: TrainRequest, *objects: Any) -> dict[str, float]:
        self.asked.append((request, objects))
        return {"loss": 1.0}

    def _recall(self, request: RecallRequest, *rollouts: Any) -> list[Any]:
        self.asked.append((request, rollouts))
        return ["receipt", *(f"pi({rollout})" for rollout in rollouts)]


@pytest.mark.parametrize("ranks", [1, 2, 7])
def test_recall_answers_in_the_order_of_the_attempts(ranks: int) -> None:
    members = [RecordingRank() for _ in range(ranks)]
    attempts = [a for g in (group(0, [True] * 3), group(1, [True] * 2)) for a in g.attempts]
    gang = gang_of(members, learner={"tokens_per_micro_batch": 40})
    found = asyncio.run(gang.recall(VERSION, attempts))
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

    slow = SimpleNamespace(train=RemoteMethod(lambda *_: forever()))
    batch = {"tasks": 3, "mini_batch_tasks": 1}
    gang = gang_of([slow], batch=batch, deadlines={"train_s": 0.01})
    with pytest.raises(StageTimeout, match=r"learner-rank0 did not finish train within 0\.03 s"):
        asyncio.run(gang.train(0, [group(i, [True]).attempts for i in range(3)]))


class Teachers:
    """A fleet of one whose teacher answers with what it was asked; `dying` calls fail first."""

    def __init__(self, dying: int = 0) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.reported: list[Any] = []
        self._dying = dying
        self.handle = SimpleNamespace(
            score=RemoteMethod(lambda *a: self._answer("score", a[3:], len(a[2]))),
            reference=RemoteMethod(lambda *a: self._answer("reference", a[1:], len(a) - 1)),
        )

    def _answer(self, method: str, objects: tuple[Any, ...], count: int) -> list[Any]:
        self.calls.append((method, objects))
        if self._dying:
            self._dying -= 1
            return [ActorDiedError(), *[None] * count]
        return ["receipt", *(f"{method}({name})" for name in objects[:count])]

    @asynccontextmanager
    async def lease(self) -> Any:
        yield SimpleNamespace(name="teacher-0", handle=self.handle)

    def report(self, member: Any, handle: Any, error: BaseException) -> None:
        self.reported.append(handle)


def held(groups: Sequence[Group], field: str) -> dict[str, Any]:
    found = {a.rollout.value: getattr(a, field) for g in groups for a in g.attempts}
    return {name: ref.value for name, ref in found.items() if ref is not None}


@pytest.mark.parametrize(
    ("objective", "scored", "referred"),
    [
        (ROLLOUT, True, []),
        (ROLLOUT | {"reference_kl": 0.1}, True, ["0.0", "0.2"]),
        (MIX | {"reference_kl": 0.1}, True, ["0.0", "0.1", "0.2"]),
        (STUDENT | {"reference_kl": 0.1}, False, ["0.0", "0.2"]),
        (GRPO | {"reference_kl": 0.1}, False, ["0.0", "0.1", "0.2"]),
    ],
)
def test_teachers_are_asked_at_once_for_all_but_the_students_support(
    objective: dict[str, Any], scored: bool, referred: list[str]
) -> None:
    teachers, judged = Teachers(dying=1), group(0, [True, False, True])
    asyncio.run(GroupScorer(config_of(objective=objective), teachers).on_verdicts(judged, VERSION))  # type: ignore[arg-type]
    assert held([judged], "scores") == ({f"0.{i}": f"score(0.{i})" for i in (0, 2)} if scored else {})
    assert held([judged], "reference") == {name: f"reference({name})" for name in referred}
    assert teachers.reported == [teachers.handle], "the teacher that died is replaced, and the question asked again"


def test_nobody_is_asked_about_a_group_without_signal() -> None:
    teachers = Teachers()
    scorer = GroupScorer(config_of(objective=ROLLOUT | {"reference_kl": 0.1}), teachers)  # type: ignore[arg-type]
    asyncio.run(scorer.on_verdicts(group(0, [False, False]), VERSION))
    assert teachers.calls == []


class House:
    """What `update` sees of the house; every event names whether the weights were locked."""

    def __init__(self, config: RunConfig) -> None:
        self.config, self.teachers = config, Teachers()
        self.events: list[str] = []
        self.trained: list[list[str]] = []
        self.scorer = GroupScorer(config, self.teachers)  # type: ignore[arg-type]
        self.publisher = SimpleNamespace(lock=asyncio.Lock(), versions={"policy": VERSION})
        self.teacher_version, self.gang = VERSION, self

    def _note(self, event: str) -> None:
        self.events.append(f"{event} {'locked' if self.publisher.lock.locked() else 'free'}")

    async def recall(self, version: Version, attempts: Sequence[AttemptRecord]) -> list[Ref]:
        assert version == VERSION
        self._note("recall")
        return [Ref(f"pi({a.rollout.value})") for a in attempts]

    async def train(self, step: int, groups: Sequence[Sequence[AttemptRecord]]) -> dict[str, float]:
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
    house = House(config_of(objective=objective, batch=batch))
    groups = [group(0, [True, False]), group(1, []), group(2, [True, True])]
    metrics = asyncio.run(update(house, 3, groups, NEXT))  # type: ignore[arg-type]
    assert house.events == [*(["recall locked"] if recalled else []), "train locked", *PUBLISHED]
    assert house.trained == trained, "an empty group keeps its place"
    assert held(groups, "policy") == {name: f"pi({name})" for name in recalled or []}
    assert metrics["attempts/trained"] == sum(map(len, trained))
    assert metrics["train/loss"] == 1.0
    waits = objective is STUDENT
    asked = [("score", ("0.0", "pi(0.0)")), ("score", ("2.0", "2.1", "pi(2.0)", "pi(2.1)"))]
    assert house.teachers.calls == (asked if waits else [])
    assert ("time/score_s" in metrics) == waits


def test_scores_that_wait_for_the_policy_are_asked_for_with_the_weights_free() -> None:
    """A teacher that dies then comes back by taking the weights, which needs the lock."""
    house = House(config_of(objective=STUDENT))
    answer = house.teachers.handle.score.answer

    def asked(*arguments: Any) -> Any:
        house._note("score")
        return answer(*arguments)

    house.teachers.handle.score = RemoteMethod(asked)
    asyncio.run(update(house, 3, [group(0, [True]), group(1, [True])], NEXT))  # type: ignore[arg-type]
    assert house.events == ["recall locked", "score free", "score free", "train locked", *PUBLISHED]


def test_a_batch_without_a_signal_trains_nothing_and_still_publishes() -> None:
    house = House(config_of(objective=STUDENT))
    metrics = asyncio.run(update(house, 3, [group(0, [False])], NEXT))  # type: ignore[arg-type]
    assert house.events == PUBLISHED
    assert metrics["attempts/trained"] == 0


def test_the_learner_gets_the_groups_in_the_order_of_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long each of them took: what is summed in another order is another run."""
    seen: list[list[int]] = []

    async def updated(house: Any, batch: int, groups: Sequence[Group], *_: Any) -> dict[str, float]:
        seen.append([g.index for g in groups])
        return {}

    class Pipeline:
        source = SimpleNamespace(expect=lambda task_ids: None)

        async def run(self, step: int, index: int, task: Any, version: Version) -> Group:
            await asyncio.sleep(0.01 * (4 - index))
            return group(index, [True])

    async def nothing(*_: Any) -> dict[str, float]:
        return {}

    monkeypatch.setattr(orchestrator.loop, "update", updated)
    envs = SimpleNamespace(figures=nothing)
    house = SimpleNamespace(config=config_of(steps=2, batch={"tasks": 4}), teacher_version=VERSION, envs=envs)
    books = SimpleNamespace(evaluate_if_due=nothing, record=nothing, progress=NOBODY)
    tasks: Any = SimpleNamespace(batch=lambda step: [group(i, []).task for i in range(4)])
    loop: Any = orchestrator.loop.train
    done = asyncio.run(
        loop(house, Pipeline(), tasks, books, incarnation=1, steps_done=0, stop=asyncio.Event()),
    )
    assert done == 2
    assert seen == [[0, 1, 2, 3]] * 2

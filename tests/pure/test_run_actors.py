"""The actors of a run without Ray: who is started where, who receives which weights, and what a replacement gets."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ray.exceptions import RayActorError

from env_workers.code_bundle import CodeBundle
from orchestrator.actors.run_actors import RunActors
from orchestrator.actors.sampling_actors import SamplingActors, start_fleets
from orchestrator.actors.spawn import MemberStarter
from sdpo.config import RunConfig
from sdpo.errors import InfrastructureError
from sdpo.types import Version
from sdpo.weights import WeightAudit
from tests.fixtures.fleets import supervised
from tests.fixtures.orchestrator import Ref

PROBE_IDS = np.arange(3, dtype=np.int32)


class FakeReservation:
    """Is placed at once, on the only node."""

    def __init__(self, name: str, bundles: Any, labels: Any) -> None:
        self.name = name
        Actor.log.append(f"reserve {name}")

    def strategy(self, bundle: int) -> str:
        return f"{self.name}[{bundle}]"

    async def wait_placed(self, timeout_s: float | None = None) -> dict[int, str]:
        return dict.fromkeys(range(9), "a node")

    def release(self) -> None:
        Actor.log.append(f"release {self.name}")


class Method:
    def __init__(self, actor: "Actor", name: str) -> None:
        self.actor, self.name = actor, name

    def options(self, **_: Any) -> "Method":
        return self

    def remote(self, *arguments: Any) -> Any:
        Actor.log.append(f"{self.actor.name} {self.name}")
        if self.name == "publish":
            return Stream([Ref("bucket"), Ref("manifest")])
        if self.name == "finish_update":
            version = Version(incarnation=0, batch=0)
            return Ref(WeightAudit(version=version, num_bytes=7, mean_abs_diff=0.1, max_abs_diff=0.1))
        return Ref(Actor.answers.get((self.actor.name, self.name), ("127.0.0.1", 1)))


class Stream:
    def __init__(self, refs: list[Ref]) -> None:
        self.refs = refs

    async def __aiter__(self) -> Any:
        for ref in self.refs:
            yield ref


class Actor:
    """Answers every call; `answers` holds other answers, or errors, by actor and method."""

    log: list[str] = []  # noqa: RUF012
    answers: dict[tuple[str, str], Any] = {}  # noqa: RUF012

    def __init__(self, name: str, options: dict[str, Any]) -> None:
        self.name, self.placed = name, options.get("scheduling_strategy")

    def __getattr__(self, name: str) -> Method:
        return Method(self, name)


@pytest.fixture(autouse=True)
def log(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    def spawn(worker: Any, namespace: str, name: str, *arguments: Any, **options: Any) -> Actor:
        return Actor(name, options)

    Actor.log, Actor.answers = [], {}
    monkeypatch.setattr("orchestrator.actors.spawn.spawn", spawn)
    monkeypatch.setattr("orchestrator.actors.learner_gang.spawn", spawn)
    for module in ("orchestrator.cluster.reservation", "orchestrator.actors.learner_gang"):
        monkeypatch.setattr(f"{module}.Reservation", FakeReservation)
    monkeypatch.setattr("ray.kill", lambda handle: Actor.log.append(f"kill {handle.name}"))
    monkeypatch.setattr("ray.nodes", lambda: [{"NodeID": "a node", "Alive": True}])
    return Actor.log


def run(scenario: Callable[[RunActors], Awaitable[None]], **placement: Any) -> None:
    """Run `scenario` with the started actors of a run with two engines, a teacher and an env worker."""
    roles = {"rollout": {"workers": 2}, "env": {"min_workers": 1, "max_workers": 1}}
    config = RunConfig.model_validate({"name": "a-run", "placement": roles | placement, "max_worker_restarts": 1})

    async def whole() -> None:
        async with asyncio.TaskGroup() as background:
            actors = RunActors(config, 3, PROBE_IDS, CodeBundle(), stacks=Path("unused"), background=background)
            try:
                await actors.start(None, 5)
                await scenario(actors)
            finally:
                actors.close()

    asyncio.run(whole())


def received(log: list[str], first: int = 0) -> list[str]:
    """The actors that received weights, after the first lines of the log."""
    return sorted(line.split()[0] for line in log[first:] if line.endswith("finish_update"))


def test_a_start_brings_all_actors_up_and_then_publishes_once(log: list[str]) -> None:
    async def scenario(actors: RunActors) -> None:
        assert sorted(name for _, name, _ in actors.actors) == [
            "env-0",
            "learner-rank0",
            "rollout-0",
            "rollout-1",
            "teacher-0",
        ]
        assert [member.serving for fleet in actors.fleets for member in fleet.members] == [True] * 4
        assert received(log) == ["rollout-0", "rollout-1", "teacher-0"]
        assert log.index("learner-rank0 publish") > max(map(log.index, ("rollout-1 start", "teacher-0 start")))
        assert actors.teacher_version == Version(incarnation=3, batch=5)

    run(scenario)
    assert sorted(line for line in log if line.startswith("release")) == sorted(
        line.replace("reserve", "release") for line in log if line.startswith("reserve")
    ), "every reservation is released"
    assert len([line for line in log if line.startswith("kill")]) == 5


def test_a_colocated_member_uses_the_bundle_of_its_rank(log: list[str]) -> None:
    async def scenario(actors: RunActors) -> None:
        placed = {name: handle.placed for _, name, handle in actors.actors}
        learner = [f"a-run-3/learner[{bundle}]" for bundle in (0, 1)]
        assert [placed[f"rollout-{i}"] for i in (0, 1)] == learner
        assert [placed[f"learner-rank{i}"] for i in (0, 1)] == learner
        assert placed["teacher-0"] == learner[0]
        assert placed["env-0"] == "a-run-3/env-0[0]"

    run(scenario, mode="colocated", learner={"ranks": 2}, rollout={"workers": 2, "num_cpus": 0.1})


def test_a_replacement_loads_the_present_weights_before_it_serves(log: list[str]) -> None:
    async def scenario(actors: RunActors) -> None:
        member, first = actors.rollouts.members[1], len(log)
        actors.rollouts.report(member, member.handle, InfrastructureError("died"))
        async with asyncio.timeout(5), actors.rollouts.checkout(only=member) as again:
            assert again.actor_name == "rollout-1-r1"
        assert received(log, first) == ["rollout-1-r1"]
        lines = log[first:]
        assert lines.index("rollout-1-r1 start") < lines.index("rollout-1-r1 begin_update")
        assert not [line for line in lines if line.startswith("reserve")], "it reuses the reservation"

    run(scenario)


def test_a_replacement_of_a_member_on_a_dead_node_has_a_new_reservation(
    log: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(actors: RunActors) -> None:
        member, first = actors.rollouts.members[1], len(log)
        monkeypatch.setattr("ray.nodes", lambda: [{"NodeID": "a node", "Alive": False}])
        actors.rollouts.report(member, member.handle, InfrastructureError("died"))
        async with asyncio.timeout(5), actors.rollouts.checkout(only=member):
            pass
        assert log[first:][:3] == ["kill rollout-1", "release a-run-3/rollout-1", "reserve a-run-3/rollout-1-r1"]

    run(scenario)


def test_a_replacement_waits_for_the_weights_that_change(log: list[str]) -> None:
    async def scenario(actors: RunActors) -> None:
        member = actors.rollouts.members[0]
        async with actors.exclusive_weights():
            actors.rollouts.report(member, member.handle, InfrastructureError("died"))
            await asyncio.sleep(0.05)
            assert not member.serving
        async with asyncio.timeout(5), actors.rollouts.checkout(only=member):
            pass

    run(scenario)


def test_a_receiver_that_fails_in_a_publication_is_replaced(log: list[str]) -> None:
    async def scenario(actors: RunActors) -> None:
        Actor.answers[("rollout-0", "receive_bucket")] = RayActorError()
        version = Version(incarnation=3, batch=6)
        async with actors.exclusive_weights():
            reports = await actors.sync(version)
        assert set(reports["policy"].failed) == {"rollout-0"}
        async with asyncio.timeout(5), actors.rollouts.checkout(only=actors.rollouts.members[0]) as member:
            assert member.actor_name == "rollout-0-r1"
        assert actors.publisher.versions["policy"] == version

    run(scenario)


def test_initial_weights_that_do_not_arrive_end_the_start(log: list[str]) -> None:
    Actor.answers[("rollout-1", "begin_update")] = RayActorError()

    async def scenario(actors: RunActors) -> None:
        raise AssertionError("it must not start")

    with pytest.raises(BaseExceptionGroup, match="unhandled errors") as raised:
        run(scenario)
    assert "rollout-1: the initial policy weights did not arrive" in str(raised.value.exceptions)


@pytest.mark.parametrize("samples", [True, False])
def test_sampling_without_a_learner(samples: bool, log: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing is sampled, as in a run on recorded batches, both fleets are empty."""
    config = RunConfig.model_validate({"placement": {"env": {"min_workers": 2, "max_workers": 2}}})
    monkeypatch.setattr(RunConfig, "samples", samples)

    async def scenario() -> list[list[str]]:
        async with asyncio.TaskGroup() as background:
            actors = SamplingActors(MemberStarter(config, "a-1"), CodeBundle(), supervised(background))
            await start_fleets(actors.fleets)
            names = [[member.name for member in fleet.serving] for fleet in actors.fleets]
            actors.close()
            return names

    assert asyncio.run(scenario()) == ([["rollout-0"], ["env-0", "env-1"]] if samples else [[], []])
    assert received(log) == []

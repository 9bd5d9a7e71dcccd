"""The learner's side of vLLM's own weight transfer: whom it tells what. The transfer itself is an integration test."""

import asyncio
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import ray
from ray.exceptions import RayTaskError

from learner.direct import RolloutClient
from orchestrator.actors.learner_gang import LearnerGang
from sdpo.config import RunConfig
from sdpo.errors import LearnerDied, StageTimeout, WeightSyncError
from sdpo.types import Version


class Call:
    """A method of an actor that answers, or fails with `error`; it keeps its arguments."""

    def __init__(self, error: Exception | None) -> None:
        self.error, self.arguments = error, list[Any]()

    def remote(self, argument: Any) -> "Call":
        self.arguments.append(argument)
        return self


class Actor:
    def __init__(self, error: Exception | None = None) -> None:
        self.init_transfer, self.update_from_transfer = Call(None), Call(error)


@pytest.fixture(autouse=True)
def _no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    def get(call: Call, timeout: float) -> None:
        if call.error is not None:
            raise call.error

    monkeypatch.setattr(ray, "get", get)


def test_every_engine_gets_its_own_ranks_of_the_group() -> None:
    actors = {f"rollout-{i}": Actor() for i in range(3)}
    info = {"rank_offset": 1, "world_size": 7, "packed": True}
    RolloutClient(actors, 2, 1.0).init_weight_transfer_engine(info)
    told = [actor.init_transfer.arguments for actor in actors.values()]
    assert told == [[info | {"rank_offset": offset}] for offset in (1, 3, 5)]


def test_a_handshake_without_ranks_is_the_same_for_all() -> None:
    actors = {f"rollout-{i}": Actor() for i in range(2)}
    RolloutClient(actors, 1, 1.0).init_weight_transfer_engine({"packed": True})
    assert [actor.init_transfer.arguments for actor in actors.values()] == [[{"packed": True}]] * 2


@pytest.mark.parametrize("error", [WeightSyncError("rollout-0: bad"), StageTimeout("rollout-0", "update", 1.0)])
def test_a_failed_receiver_is_remembered_and_left_out(error: Exception) -> None:
    actors = {"rollout-0": Actor(error), "rollout-1": Actor()}
    client = RolloutClient(actors, 1, 1.0)
    for chunk in ({"names": ["a"]}, {"names": ["b"]}):
        client.update_weights(chunk)
    assert client.failed == {"rollout-0": str(error)}
    assert actors["rollout-0"].update_from_transfer.arguments == [{"names": ["a"]}]
    assert actors["rollout-1"].update_from_transfer.arguments == [{"names": ["a"]}, {"names": ["b"]}]


def test_the_orchestrator_opens_and_closes_the_update() -> None:
    actors = {"rollout-0": Actor()}
    client = RolloutClient(actors, 1, 1.0)
    client.start_weight_update()
    client.finish_weight_update("0.1")
    assert actors["rollout-0"].update_from_transfer.arguments == []


class Rank:
    """A rank whose transfer never ends, or fails with `error`."""

    def __init__(self, error: Exception | None) -> None:
        self.error, self.send_direct = error, self
        self.ping = SimpleNamespace(remote=lambda: asyncio.sleep(0))

    async def remote(self, *arguments: Any) -> None:
        if self.error is not None:
            raise self.error
        await asyncio.sleep(60)


@pytest.mark.parametrize("error", [None, RayTaskError("send_direct", "NCCL error", RuntimeError("NCCL error"))])
def test_a_transfer_that_does_not_end_well_ends_the_gang(error: Exception | None) -> None:
    """The run then goes on at its checkpoint, with a new gang."""
    gang = LearnerGang(RunConfig.model_validate({"deadlines": {"weights_s": 0.01}}), "none")
    gang._ranks = [Rank(error)]
    with pytest.raises(LearnerDied, match=r"weights were not sent: .*(send_direct within|NCCL error)"):
        asyncio.run(gang.send_direct(Version(incarnation=0, batch=0), np.arange(3, dtype=np.int32), {}))

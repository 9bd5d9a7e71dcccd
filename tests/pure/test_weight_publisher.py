"""Publications of weights: the order of the calls, receivers that fail, and the two ways to travel."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
from ray.exceptions import RayActorError, RayTaskError

from orchestrator.actors.fleet import Member
from orchestrator.actors.weight_publisher import WeightPublisher
from sdpo.errors import LearnerDied, WeightSyncError
from sdpo.types import Version
from sdpo.weights import WeightAudit
from tests.fixtures.orchestrator import Ref, RemoteMethod

VERSION = Version(incarnation=1, batch=2)
PROBE_IDS = np.arange(3, dtype=np.int32)


class Receiver:
    """Records its calls in order; `fails` is the method that raises `error`."""

    def __init__(self, fails: str = "", difference: float = 0.5, error: Exception | None = None) -> None:
        self.error = error or RayActorError()
        self.fails, self.difference, self.calls = fails, difference, list[tuple[str, Any]]()

    def __getattr__(self, method: str) -> RemoteMethod:
        def answer(argument: Any) -> Any:
            self.calls.append((method, argument))
            if method == self.fails:
                return self.error
            if method == "finish_update":
                return WeightAudit(
                    version=VERSION, num_bytes=70, mean_abs_diff=self.difference / 2, max_abs_diff=self.difference
                )
            return None

        return RemoteMethod(answer)


class Gang:
    """Streams two buckets and a manifest; sends directly to all but `unreached`."""

    def __init__(self, unreached: str = "", is_alive: bool = True) -> None:
        self.unreached, self.is_alive, self.streamed = unreached, is_alive, list[Any]()

    async def stream(self, stream: str, version: Version, probe_ids: Any) -> AsyncIterator[Any]:
        self.streamed.append((stream, version))
        for item in ("bucket 0", "bucket 1", "manifest"):
            yield Ref(item)

    async def send_direct(self, version: Version, probe_ids: Any, receivers: dict[str, Any]) -> Any:
        self.streamed.append(sorted(receivers))
        return "direct manifest", {name: "broken wire" for name in receivers if name == self.unreached}

    async def require_alive(self) -> None:
        if not self.is_alive:
            raise LearnerDied("learner: rank 0 is dead")


def publish(gang: Any, stream: Any = "policy", direct: bool = False, **receivers: Receiver) -> Any:
    publisher = WeightPublisher(gang, PROBE_IDS, 5.0, lambda member: direct)
    publisher.versions = {"policy": VERSION, "teacher": VERSION}
    return asyncio.run(publisher.publish(stream, [Member(name, handle) for name, handle in receivers.items()]))


def test_every_receiver_gets_every_bucket_in_order_and_then_the_manifest() -> None:
    gang, first, second = Gang(), Receiver(), Receiver(difference=0.75)
    report = publish(gang, "teacher", first=first, second=second)
    assert gang.streamed == [("teacher", VERSION)], "one stream for all"
    assert (
        first.calls
        == second.calls
        == [
            ("begin_update", VERSION),
            ("receive_bucket", "bucket 0"),
            ("receive_bucket", "bucket 1"),
            ("finish_update", "manifest"),
        ]
    )
    assert (report.num_bytes, report.max_abs_diff, report.failed) == (70, 0.75, {})
    assert report.mean_abs_diff == 0.375


@pytest.mark.parametrize("fails", ["begin_update", "receive_bucket", "finish_update"])
def test_a_receiver_that_fails_is_reported_and_gets_no_further_call(fails: str) -> None:
    bad, good = Receiver(fails), Receiver()
    report = publish(Gang(), bad=bad, good=good)
    assert set(report.failed) == {"bad"}
    assert bad.calls[-1][0] == fails
    assert good.calls[-1] == ("finish_update", "manifest")


def test_a_dead_learner_is_named_and_not_its_receivers() -> None:
    with pytest.raises(LearnerDied):
        publish(Gang(is_alive=False), bad=Receiver("finish_update"))


def test_a_bucket_that_a_broken_rank_left_is_a_death_of_the_learner() -> None:
    broken = RayTaskError("publish", "Connection reset by peer", RuntimeError("Connection reset by peer"))
    with pytest.raises(LearnerDied):
        publish(Gang(is_alive=False), bad=Receiver("receive_bucket", error=broken))
    with pytest.raises(RayTaskError):
        publish(Gang(), bad=Receiver("receive_bucket", error=broken))


def test_the_policy_travels_directly_to_engines_that_can_receive_it() -> None:
    gang, lost, good = Gang(unreached="lost"), Receiver(), Receiver()
    report = publish(gang, direct=True, lost=lost, good=good)
    assert gang.streamed == [["good", "lost"]]
    assert good.calls == [("begin_update", VERSION), ("finish_update", "direct manifest")]
    assert lost.calls == [("begin_update", VERSION)]
    assert isinstance(report.failed["lost"], WeightSyncError)
    assert str(report.failed["lost"]) == "lost: broken wire"


def test_nothing_is_sent_directly_where_no_engine_could_begin() -> None:
    gang = Gang()
    assert set(publish(gang, direct=True, bad=Receiver("begin_update")).failed) == {"bad"}
    assert gang.streamed == []


def test_a_publication_without_receivers_moves_nothing() -> None:
    gang = Gang()
    report = publish(gang)
    assert (gang.streamed, report.num_bytes) == ([], 0)

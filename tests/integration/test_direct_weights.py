"""vLLM's own weight transfer from the learner's ranks to rollout workers, end to end, but for NCCL itself.

Real engines, real ranks, the real publisher, vLLM's own sender and receiver; see
`tests.fixtures.nccl_over_tcp` for the wire.
Tests run in order; the last ones kill a worker and break the other.
"""

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray

from learner.rank import LearnerRank
from orchestrator.actors import learner_gang
from orchestrator.actors.fleet import Member
from orchestrator.actors.learner_gang import LearnerGang
from orchestrator.actors.weight_publisher import SyncReport, WeightPublisher
from rollout_workers.worker import CONCURRENCY_GROUPS, RolloutWorker
from sdpo.config import RunConfig
from sdpo.types import Version
from tests.fixtures.rollout import PROBE_IDS, collect, load_reference, next_log_probs, request, run_config
from tests.fixtures.tiny_models import make_tiny_model

pytestmark = [pytest.mark.timeout(1200), pytest.mark.usefixtures("ray_cluster")]
START_TIMEOUT_S = 300


class WiredRank(LearnerRank):
    """A rank whose vLLM sends over TCP."""

    def __init__(self, config: RunConfig, rank: int, world_size: int) -> None:
        import tests.fixtures.nccl_over_tcp  # noqa: F401

        super().__init__(config, rank, world_size)

    def add_noise(self) -> None:
        """From now on the wire changes what is sent."""
        from tests.fixtures.nccl_over_tcp import StoreCommunicator

        StoreCommunicator.noise = 0x40


class WiredWorker(RolloutWorker):
    """A worker whose engine receives over TCP; `handshakes` tells (rank offset, world size) of each."""

    def __init__(self, config: RunConfig, index: int) -> None:
        import rollout_workers.engine

        rollout_workers.engine.EXTENSION_CLASS = "tests.fixtures.nccl_over_tcp_engine.EngineExtension"
        super().__init__(config, index)
        self._handshakes: list[tuple[int, int]] = []

    @ray.method(concurrency_group="control")
    async def init_transfer(self, init_info: dict[str, Any]) -> None:
        self._handshakes.append((init_info["rank_offset"], init_info["world_size"]))
        await super().init_transfer(init_info)

    @ray.method(concurrency_group="health")
    async def handshakes(self) -> list[tuple[int, int]]:
        return self._handshakes


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The engines load the first, the learner holds the second."""
    folder = tmp_path_factory.mktemp("models")
    first, second = (make_tiny_model(folder / str(seed), seed=seed, tie_word_embeddings=False) for seed in (1, 2))
    return first, second


def direct_config(model: Path) -> RunConfig:
    """`nccl` without GPUs, which validation would refuse; a model takes several buckets."""
    config = run_config(model, learner={"num_threads": 1}, placement={"learner": {"ranks": 2}})
    weights = config.weights.model_copy(update={"backend": "nccl", "bucket_bytes": 50_000, "audit_tolerance": 1e-3})
    return config.model_copy(update={"weights": weights})


@pytest.fixture(scope="module")
def members(ray_cluster: str, models: tuple[Path, Path]) -> list[Member]:
    actor = ray.remote(concurrency_groups=CONCURRENCY_GROUPS)(WiredWorker)
    handles = [actor.options(num_cpus=0.25).remote(direct_config(models[0]), index) for index in range(2)]
    ray.get([handle.start.remote() for handle in handles], timeout=START_TIMEOUT_S)
    return [Member(f"rollout-{index}", handle) for index, handle in enumerate(handles)]


@pytest.fixture(scope="module")
def publisher(ray_cluster: str, models: tuple[Path, Path], members: list[Member]) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learner_gang, "LearnerRank", WiredRank)
        gang = LearnerGang(direct_config(models[1]), ray_cluster)
        asyncio.run(gang.start(None))
    yield WeightPublisher(gang, PROBE_IDS, timeout_s=60, is_direct=lambda member: True)
    gang.kill()


def sender(publisher: WeightPublisher) -> Any:
    return publisher._gang._ranks[0]


def publish(publisher: WeightPublisher, batch: int, receivers: list[Member]) -> SyncReport:
    publisher.versions["policy"] = Version(incarnation=1, batch=batch)
    return asyncio.run(publisher.publish("policy", receivers))


def handshakes(member: Member) -> list[tuple[int, int]]:
    told: list[tuple[int, int]] = ray.get(member.handle.handshakes.remote(), timeout=10)
    return told


def test_a_worker_samples_from_the_learners_weights(
    publisher: WeightPublisher, members: list[Member], models: tuple[Path, Path]
) -> None:
    report = publish(publisher, 0, members[:1])
    reference = load_reference(models[1])
    assert not report.failed
    assert report.num_bytes == 4 * sum(p.numel() for p in reference.parameters())
    assert report.max_abs_diff < 1e-3
    (_, rollout), *_ = collect(members[0].handle, request()).values()
    (segment,) = rollout.segments
    sequence = np.concatenate([rollout.prompt_ids, segment.token_ids])
    scores = next_log_probs(reference, sequence)[len(rollout.prompt_ids) - 1 : -1]
    assert np.abs(scores[np.arange(len(segment.token_ids)), segment.token_ids] - segment.log_probs).max() < 1e-3
    assert {span.version for span in segment.versions} == {Version(incarnation=1, batch=0)}
    assert handshakes(members[0]) == [(1, 2)]


def test_another_set_of_workers_shakes_hands_again_and_the_same_set_does_not(
    publisher: WeightPublisher, members: list[Member]
) -> None:
    for batch in (1, 2):
        report = publish(publisher, batch, members)
        assert not report.failed
        assert report.max_abs_diff < 1e-3
        assert handshakes(members[0]) == [(1, 2), (1, 3)]
        assert handshakes(members[1]) == [(2, 3)]
    health = ray.get([member.handle.health.remote() for member in members], timeout=10)
    assert [each["version"] for each in health] == ["1.2", "1.2"]


def test_a_dead_worker_is_reported_and_the_others_are_served(publisher: WeightPublisher, members: list[Member]) -> None:
    ray.kill(members[1].handle)
    report = publish(publisher, 3, members)
    assert list(report.failed) == ["rollout-1"]
    assert handshakes(members[0]) == [(1, 2), (1, 3), (1, 2)]
    health = ray.get(members[0].handle.health.remote(), timeout=10)
    assert (health["version"], health["state"]) == ("1.3", "serving")


def test_what_the_wire_changed_fails_the_audit(publisher: WeightPublisher, members: list[Member]) -> None:
    """The digest does not cover these bytes: the probe must notice."""
    ray.get(sender(publisher).add_noise.remote(), timeout=10)
    report = publish(publisher, 4, members[:1])
    assert "audit_tolerance" in str(report.failed["rollout-0"])
    health = ray.get(members[0].handle.health.remote(), timeout=10)
    assert (health["state"], health["alive"]) == ("broken", False)

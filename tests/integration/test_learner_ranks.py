"""Two learner ranks as Ray actors against one rank: same loss, same gradients, one stream, one checkpoint."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray

from learner.messages import OldLogProbsRequest
from sdpo.config import RunConfig
from sdpo.errors import InfrastructureError
from sdpo.types import Experience, PolicyScores, Version
from sdpo.weights import WeightManifest
from tests.fixtures.learner import (
    ObservedRank,
    make_config,
    masters,
    one_rank,
    random_experiences,
    train_calls,
)
from tests.fixtures.tiny_models import make_tiny_model

NEXT = Version(incarnation=0, batch=1)
PROBE = np.arange(3, 43, dtype=np.int32)
DEADLINE_S = 120
ALONE = 1
"""A budget that gives every sequence its own micro-batch, so that only the order of sums differs between gangs."""


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    folder = make_tiny_model(tmp_path_factory.mktemp("model"))
    return make_config(folder, placement={"learner": {"ranks": 2}}, deadlines={"train_s": 60.0, "start_s": 60.0})


@pytest.fixture
def gang(ray_cluster: str, config: RunConfig) -> Iterator[Callable[..., list[Any]]]:
    """Call a method on both ranks, with one argument list for each or the same for both."""
    ranks = [ray.remote(ObservedRank).options(num_cpus=0).remote(config, rank, 2) for rank in range(2)]

    def call(method: str, *arguments: Any, each: Sequence[Sequence[Any]] | None = None) -> list[Any]:
        calls = each if each is not None else [arguments] * 2
        refs = [getattr(rank, method).remote(*args) for rank, args in zip(ranks, calls, strict=True)]
        return list(ray.get(refs, timeout=DEADLINE_S))

    address = ray.get(ranks[0].address.remote(), timeout=DEADLINE_S)
    call("setup", *address)
    call.ranks = ranks  # type: ignore[attr-defined]
    yield call
    for rank in ranks:
        ray.kill(rank)


def work(experiences: Sequence[Experience], ranks: int, tokens: int, **plan: Any) -> list[list[Any]]:
    """Arguments of `train` for every rank. Arrays go as references, as the orchestrator sends them."""
    calls = train_calls(experiences, ranks, tokens, **plan)
    return calls if ranks == 1 else [[request, *(ray.put(o) for o in objects)] for request, *objects in calls]


def distance(left: Any, right: Any) -> float:
    return float(np.linalg.norm(left - right) / np.linalg.norm(right))


def test_two_ranks_equal_one(gang: Callable[..., list[Any]], config: RunConfig, tmp_path: Path) -> None:
    experiences = random_experiences(9, [i % 4 != 1 for i in range(9)])
    lonely = random_experiences(1, seed=5)
    with one_rank(config) as one:
        want = one.train(*work(experiences, 1, ALONE)[0])
        one.update_teacher()
        want_lonely = one.train(*work(lonely, 1, 80)[0])
        want_gradients = one.gradients()
        *_, want_manifest = one.publish("policy", NEXT, PROBE)

    got = gang("train", each=work(experiences, 2, ALONE))
    assert got[0] | {"seconds": 0} == got[1] | {"seconds": 0}
    for key in want.keys() - {"seconds"}:
        assert got[0][key] == pytest.approx(want[key], rel=1e-5), key
    gang("update_teacher")

    # A rank without a sequence takes part with weight zero.
    alone = work(lonely, 2, 80)
    assert alone[1][0].mini_batches == (((),),)
    assert gang("train", each=alone)[0]["loss"] == pytest.approx(want_lonely["loss"], rel=1e-4)
    for gradients in gang("gradients"):
        assert distance(gradients[0], want_gradients[0]) <= 1e-6

    manifest = stream(gang)
    assert isinstance(manifest, WeightManifest)
    assert isinstance(want_manifest, WeightManifest)
    assert (manifest.num_tensors, manifest.num_bytes) == (want_manifest.num_tensors, want_manifest.num_bytes)
    np.testing.assert_allclose(manifest.probe_log_probs, want_manifest.probe_log_probs, atol=1e-2)

    # What two ranks saved, one rank resumes, teacher included.
    gang("save", str(tmp_path / "checkpoint"))
    with one_rank(config, str(tmp_path / "checkpoint")) as one:
        assert one._backend.optimizer_step == 2
        *_, resumed = one.publish("policy", NEXT, PROBE)
        *_, teacher = one.publish("teacher", NEXT, PROBE)
        weights = masters(one)
    assert isinstance(resumed, WeightManifest)
    assert isinstance(teacher, WeightManifest)
    assert resumed.digest == manifest.digest
    assert teacher.digest == stream(gang, "teacher").digest
    assert teacher.digest != resumed.digest
    gang("export", str(tmp_path / "export"))
    with one_rank(make_config(tmp_path / "export")) as one:
        assert all((weights[name] == tensor).all() for name, tensor in masters(one).items())


def stream(gang: Any, which: str = "policy") -> WeightManifest:
    """Read rank 0's stream as the orchestrator does; the other rank yields nothing."""
    generators = [
        rank.publish.options(num_returns="streaming", _generator_backpressure_num_objects=2).remote(which, NEXT, PROBE)
        for rank in gang.ranks
    ]
    items = [ray.get(ref, timeout=DEADLINE_S) for ref in generators[0]]
    assert list(generators[1]) == []
    assert len(items) >= 2
    assert isinstance(items[-1], WeightManifest)
    return items[-1]


def test_two_ranks_take_the_mini_batches_of_one(gang: Callable[..., list[Any]], config: RunConfig) -> None:
    """pi_old recalled by each rank for its own attempts; the second mini-batch leaves a rank without work, the third
    both."""
    experiences = random_experiences(7, [i != 6 for i in range(7)])
    parts = [[0, 1, 2, 3], [4], [6], [5, 2]]
    with one_rank(config) as one:
        recalled = old_log_probs_of_all(lambda each: [one.compute_old_log_probs(*each[0])], experiences, [range(7)])
        want = one.train(*work(recalled, 1, ALONE, mini_batches=parts)[0])
        want_gradients = one.gradients()
    shares = [range(0, 7, 2), range(1, 7, 2)]
    found = old_log_probs_of_all(lambda each: gang("compute_old_log_probs", each=each), experiences, shares)
    for left, right in zip(found, recalled, strict=True):
        assert left.policy is not None
        assert right.policy is not None
        np.testing.assert_allclose(left.policy.sampled_log_probs, right.policy.sampled_log_probs, atol=1e-5)
    got = gang("train", each=work(found, 2, ALONE, mini_batches=parts))[0]
    assert (got["steps_taken"], got["steps_idle"]) == (want["steps_taken"], want["steps_idle"]) == (3, 1)
    for key in want.keys() - {"seconds"}:
        assert got[key] == pytest.approx(want[key], rel=1e-3), key
    first, *_ = gang("gradients")
    assert distance(first[0], want_gradients[0]) <= 1e-6


def old_log_probs_of_all(
    call: Callable[[list[list[Any]]], list[Any]], experiences: Sequence[Experience], shares: Sequence[Sequence[int]]
) -> list[Experience]:
    """The experiences with pi_old, each recalled by the rank whose share it is in, in two micro-batches."""
    each = [
        [
            OldLogProbsRequest(version=NEXT, micro_batches=(tuple(range(len(share) - 1)), (len(share) - 1,))),
            *(experiences[i].rollout for i in share),
        ]
        for share in shares
    ]
    found: dict[int, PolicyScores] = {}
    for share, (_, *scores) in zip(shares, call(each), strict=True):
        found |= dict(zip(share, scores, strict=True))
    return [replace(experience, policy=found[i]) for i, experience in enumerate(experiences)]


def test_ranks_with_unequal_plans_fail_instead_of_waiting(gang: Callable[..., list[Any]]) -> None:
    each = work(random_experiences(4), 2, 8192)
    whole = each[1][0]
    each[1][0] = replace(whole, mini_batches=(((0,), (1,), ()),))
    with pytest.raises(InfrastructureError, match="different numbers of micro-batches"):
        gang("train", each=each)
    each[1][0] = replace(whole, mini_batches=(((0,),), ((1,),)))
    with pytest.raises(InfrastructureError, match="different numbers of mini-batches"):
        gang("train", each=each)

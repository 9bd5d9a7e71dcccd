"""Two learner ranks as Ray actors against one rank: same loss, same gradients, one stream, one checkpoint."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray

from sdpo.config import RunConfig
from sdpo.errors import InfrastructureError
from sdpo.types import Rollout, Version
from sdpo.weights import WeightManifest
from tests.learner_fixtures import (
    ObservedRank,
    make_config,
    masters,
    one_rank,
    random_rollouts,
    random_scores,
    requests,
)
from tests.tiny_models import make_tiny_model

NEXT = Version(incarnation=0, batch=1)
PROBE = np.arange(3, 43, dtype=np.int32)
DEADLINE_S = 120
ALONE = 1
"""A budget that gives every sequence its own micro-batch, so that only the order of sums differs between gangs."""


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    folder = make_tiny_model(tmp_path_factory.mktemp("model"))
    return make_config(folder, learner={"ranks": 2}, deadlines={"train_s": 60.0, "start_s": 60.0})


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


def work(rollouts: Sequence[Rollout], scored: Sequence[bool], ranks: int, tokens: int) -> list[list[Any]]:
    """Arguments of `train` for every rank. Rollouts and scores go as references, as the orchestrator sends them."""
    scores = [random_scores(r) for r, flag in zip(rollouts, scored, strict=True) if flag]
    objects: list[Any] = [*rollouts, *scores]
    if ranks > 1:
        objects = [ray.put(o) for o in objects]
    return [[request, *objects] for request in requests(rollouts, scored, ranks, tokens)]


def distance(left: Any, right: Any) -> float:
    return float(np.linalg.norm(left - right) / np.linalg.norm(right))


def test_two_ranks_equal_one(gang: Callable[..., list[Any]], config: RunConfig, tmp_path: Path) -> None:
    rollouts, scored = random_rollouts(9), [i % 4 != 1 for i in range(9)]
    lonely = random_rollouts(1, seed=5)
    with one_rank(config) as one:
        want = one.train(*work(rollouts, scored, 1, ALONE)[0])
        want_gradients = one.gradients()
        one.update_teacher()
        want_lonely = one.train(*work(lonely, [True], 1, 80)[0])
        *_, want_manifest = one.publish("policy", NEXT, PROBE)

    got = gang("train", each=work(rollouts, scored, 2, ALONE))
    assert got[0] | {"seconds": 0} == got[1] | {"seconds": 0}
    assert got[0]["loss"] == pytest.approx(want["loss"], rel=1e-5)
    assert got[0]["grad_norm"] == pytest.approx(want["grad_norm"], rel=1e-5)
    for key in ("active_tokens", "tokens", "learning_rate", "skipped"):
        assert got[0][key] == want[key]
    for gradients in gang("gradients"):
        assert distance(gradients, want_gradients) <= 1e-6
    gang("update_teacher")

    # A rank without a sequence takes part with weight zero.
    alone = work(lonely, [True], 2, 80)
    assert alone[1][0].micro_batches == ((),)
    assert gang("train", each=alone)[0]["loss"] == pytest.approx(want_lonely["loss"], rel=1e-4)

    manifest = stream(gang)
    assert isinstance(manifest, WeightManifest)
    assert isinstance(want_manifest, WeightManifest)
    assert (manifest.num_tensors, manifest.num_bytes) == (want_manifest.num_tensors, want_manifest.num_bytes)
    np.testing.assert_allclose(manifest.probe_log_probs, want_manifest.probe_log_probs, atol=1e-2)

    # What two ranks saved, one rank resumes, teacher included.
    gang("save", str(tmp_path / "checkpoint"))
    with one_rank(config, str(tmp_path / "checkpoint")) as one:
        assert one._trainer.optimizer_step == 2
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


def test_ranks_with_unequal_plans_fail_instead_of_waiting(gang: Callable[..., list[Any]]) -> None:
    rollouts = random_rollouts(4)
    each = work(rollouts, [True] * 4, 2, 8192)
    each[1][0] = replace(each[1][0], micro_batches=((0,), (1,), (2,)))
    with pytest.raises(InfrastructureError, match="different numbers of micro-batches"):
        gang("train", each=each)

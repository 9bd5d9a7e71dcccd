"""The teacher worker: weights from the learner's stream, version checks, scores independent of batching."""

from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from learner.messages import ScoreReceipt
from learner.rank import LearnerRank
from learner.teacher import TeacherWorker
from sdpo.errors import InfrastructureError, WeightSyncError
from sdpo.types import TeacherScores, Version
from sdpo.weights import Stream, WeightAudit, WeightBucket, WeightManifest, make_bucket
from tests.fixtures.learner import (
    VERSION,
    hindsight_of,
    make_config,
    one_rank,
    random_experiences,
    random_rollout,
    random_rollouts,
    scores_only,
    train_calls,
)
from tests.fixtures.tiny_models import make_tiny_model

NEXT = Version(incarnation=0, batch=1)
PROBE = np.arange(3, 43, dtype=np.int32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"))


def started(
    folder: Path, version: Version | None = VERSION, dtype: str = "float32", **teacher: object
) -> TeacherWorker:
    worker = TeacherWorker(make_config(folder, dtype=dtype, teacher=teacher, weights={"bucket_bytes": 50_000}), 0)
    worker.start(version)
    return worker


def trained(learner: LearnerRank) -> None:
    (call,) = train_calls(random_experiences(6))
    for _ in range(3):
        learner.train(*call)
        learner.update_teacher()


def sent(learner: LearnerRank, stream: Stream = "policy") -> tuple[list[WeightBucket], WeightManifest]:
    *buckets, manifest = list(learner.publish(stream, NEXT, PROBE))
    assert isinstance(manifest, WeightManifest)
    return [b for b in buckets if isinstance(b, WeightBucket)], manifest


def receive(worker: TeacherWorker, buckets: list[WeightBucket], manifest: WeightManifest) -> WeightAudit:
    worker.begin_update(manifest.version)
    for bucket in buckets:
        worker.receive_bucket(bucket)
    return worker.finish_update(manifest)


def scores_of(worker: TeacherWorker, version: Version, count: int = 8) -> list[TeacherScores]:
    rollouts = random_rollouts(count)
    answer = worker.score(version, 1.0, [hindsight_of(r, PROBE) for r in rollouts], *rollouts)
    assert isinstance(answer[0], ScoreReceipt)
    assert answer[0].version == version
    assert answer[0].num_tokens == sum(len(PROBE) + len(r.response_ids) for r in rollouts)
    return scores_only(answer)


def same(left: list[TeacherScores], right: list[TeacherScores], tolerance: float = 0.0) -> bool:
    return all(
        np.allclose(getattr(a, key), getattr(b, key), rtol=0, atol=tolerance)
        for a, b in zip(left, right, strict=True)
        for key in ("support_log_probs", "tail_log_probs", "sampled_log_probs")
    )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("tied", [True, False])
def test_updated_teacher_scores_as_a_fresh_one(tmp_path: Path, dtype: str, tied: bool) -> None:
    source = make_tiny_model(tmp_path / "model", tie_word_embeddings=tied)
    with one_rank(make_config(source, dtype=dtype, weights={"bucket_bytes": 50_000})) as learner:
        trained(learner)
        buckets, manifest = sent(learner)
        learner.export(str(tmp_path / "export"))
    assert len(buckets) > 2
    assert all(b.data.nbytes <= 50_000 or len(b.specs) == 1 for b in buckets)
    worker = started(source, dtype=dtype)
    before = scores_of(worker, VERSION)
    assert receive(worker, buckets, manifest).max_abs_diff <= 1e-5
    after = scores_of(worker, NEXT)
    assert same(after, scores_of(started(tmp_path / "export", NEXT, dtype), NEXT))
    assert not same(after, before, 1e-3)


def test_teacher_stream_is_the_average(folder: Path) -> None:
    with one_rank(make_config(folder)) as learner:
        trained(learner)
        buckets, manifest = sent(learner, "teacher")
        _, policy = sent(learner, "policy")
        tensors = learner._backend.full_tensors(torch.float32, learner._average)
        average = {name: tensor.clone() for name, tensor in tensors}
    worker = started(folder, None)
    assert receive(worker, buckets, manifest).max_abs_diff <= 1e-5
    assert all(torch.equal(average[n], p.data) for n, p in worker._parameters.items())
    assert manifest.digest != policy.digest
    assert np.abs(manifest.probe_log_probs - policy.probe_log_probs).max() > 1e-3


def both_streams(folder: Path, learner: dict[str, Any]) -> dict[Stream, tuple[list[WeightBucket], WeightManifest]]:
    """Of a learner that was trained a little."""
    rank = LearnerRank(make_config(folder, learner=learner), 0, 1)
    try:
        rank.setup("127.0.0.1", rank.address()[1])
        trained(rank)
        return {"teacher": sent(rank, "teacher"), "policy": sent(rank, "policy")}
    finally:
        rank.close()


@pytest.mark.parametrize(
    "learner",
    [
        {"backend": "fsdp2", "lora": {"rank": 4}},
        {"backend": "zero2"},
        {"backend": "zero3", "lora": {"rank": 4}},
    ],
)
def test_every_teacher_follows_every_learner(folder: Path, learner: dict[str, Any]) -> None:
    """The tensors carry the names of the checkpoint, and the audit finds the sender's log-probs of the probe.

    The learner has a process of its own: DeepSpeed keeps process groups for as long as its process lives.
    """
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        streams = process.submit(both_streams, folder, learner).result(timeout=240)
    initial = scores_of(started(folder), VERSION)
    kinds: dict[str, Stream] = {"ema": "teacher", "live": "policy", "trust_region": "policy"}
    for kind, stream in kinds.items():
        worker = started(folder, None, regularisation={"kind": kind})
        assert receive(worker, *streams[stream]).max_abs_diff <= 1e-5, kind
        assert not same(scores_of(worker, NEXT), initial, 1e-6), kind


def test_live_teacher_takes_the_policy(folder: Path) -> None:
    with one_rank(make_config(folder, teacher={"regularisation": {"kind": "live"}})) as learner:
        trained(learner)
        assert sent(learner, "teacher")[1].digest == sent(learner, "policy")[1].digest


def test_frozen_teacher_has_no_stream(folder: Path) -> None:
    with one_rank(make_config(folder, teacher={"regularisation": {"kind": "frozen"}})) as learner:
        with pytest.raises(ValueError, match="frozen"):
            sent(learner, "teacher")
        assert sent(learner, "policy")[1].num_tensors > 0


def test_scores_do_not_depend_on_batching(folder: Path) -> None:
    assert same(
        scores_of(started(folder, tokens_per_forward=60), VERSION),
        scores_of(started(folder, tokens_per_forward=8192), VERSION),
        1e-5,
    )


def test_scores_are_distributions_at_every_position(folder: Path) -> None:
    for rollout, scores in zip(random_rollouts(8), scores_of(started(folder), VERSION), strict=True):
        assert (scores.task_id, scores.sample_index) == (rollout.task_id, rollout.sample_index)
        assert scores.support_log_probs is not None
        assert scores.tail_log_probs is not None
        assert scores.support_log_probs.shape == (len(rollout.response_ids), 5)
        total = np.exp(scores.support_log_probs).sum(-1) + np.exp(scores.tail_log_probs)
        np.testing.assert_allclose(total, 1, atol=1e-5)


def test_refuses_other_versions_and_attempts(folder: Path) -> None:
    worker, (rollout, other) = started(folder), random_rollouts(2)
    with pytest.raises(InfrastructureError, match=r"holds weights 0\.0, asked for 0\.1"):
        worker.score(NEXT, 1.0, [hindsight_of(rollout)], rollout)
    with pytest.raises(InfrastructureError, match="came with"):
        worker.score(VERSION, 1.0, [hindsight_of(rollout)], other)
    with pytest.raises(InfrastructureError, match="holds weights None"):
        started(folder, None).score(VERSION, 1.0, [hindsight_of(rollout)], rollout)
    bare = random_rollout(np.random.default_rng(0), 0, 300, [4, 6], 0)
    with pytest.raises(InfrastructureError, match="no support ids"):
        worker.score(VERSION, 1.0, [hindsight_of(bare)], bare)


def test_incomplete_or_damaged_updates_never_serve(folder: Path) -> None:
    with one_rank(make_config(folder, weights={"bucket_bytes": 50_000})) as learner:
        trained(learner)
        buckets, manifest = sent(learner)
    worker, (rollout,) = started(folder), random_rollouts(1)
    with pytest.raises(WeightSyncError, match="num_buckets"):
        receive(worker, buckets[:-1], manifest)
    with pytest.raises(InfrastructureError, match="holds weights None"):
        worker.score(NEXT, 1.0, [hindsight_of(rollout)], rollout)
    damaged = buckets[0].data.copy()
    damaged[0] ^= 1
    with pytest.raises(WeightSyncError, match="SHA-256"):
        receive(worker, [replace(buckets[0], data=damaged)], manifest)
    with pytest.raises(WeightSyncError, match="unexpected tensor"):
        receive(worker, [make_bucket(0, [("no.such.weight", "float32", (1,), np.zeros(4, np.uint8))])], manifest)
    lying = replace(manifest, probe_log_probs=manifest.probe_log_probs + 1)
    with pytest.raises(WeightSyncError, match="differ from the learner's by 1 on average"):
        receive(worker, buckets, lying)
    missing = replace(manifest, probe_log_probs=manifest.probe_log_probs * np.float32(np.nan))
    with pytest.raises(WeightSyncError, match="differ from the learner's by nan on average"):
        receive(worker, buckets, missing)
    assert receive(worker, buckets, manifest).version == NEXT
    assert worker.score(NEXT, 1.0, [hindsight_of(rollout)], rollout)

"""What teachers answer: every kind and every support against log-probs made of whole logits."""

from functools import lru_cache
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from learner.batch import support_ids_of
from learner.messages import ScoreReceipt
from learner.model import load_causal_lm
from learner.publish import manifest_of, probe_log_probs, weight_buckets
from learner.scoring import ScoringModel
from learner.teacher import INITIAL, TeacherWorker
from sdpo.errors import InfrastructureError, WeightSyncError
from sdpo.teachers import TeacherKind
from sdpo.types import PolicyScores, ReferenceScores, Rollout, TeacherScores, Version
from sdpo.weights import StreamTally
from tests.fixtures.learner import VERSION, hindsight_of, make_config, random_rollouts
from tests.fixtures.tiny_models import make_tiny_model

NEXT = Version(incarnation=0, batch=1)
HINDSIGHT = np.arange(3, 43, dtype=np.int32)
TEMPERATURE, RATE, TOP_K, VOCABULARY = 0.7, 0.3, 5, 384
KINDS = {"ema": {}, "live": {}, "frozen": {}, "trust_region": {"rate": RATE}}
SUPPORTS = ("rollout", "student", "teacher", "full", "none")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The initial model, and what the stream makes of it."""
    root = tmp_path_factory.mktemp("models")
    first, second = (
        make_tiny_model(root / str(seed), seed=seed, vocab_size=VOCABULARY, dtype=torch.float32) for seed in (0, 1)
    )
    return first, second


def objective(support: str, **more: Any) -> dict[str, Any]:
    if support == "none":
        return {"kind": "sdpo", "estimator": "sampled_token", "divergence": "reverse_kl", "top_k": 0} | more
    return {"kind": "sdpo", "support": support, "top_k": 0 if support == "full" else TOP_K} | more


def started(initial: Path, kind: str, settings: dict[str, Any], **more: Any) -> TeacherWorker:
    regularisation = {"kind": kind} | (more or KINDS[kind])
    teacher = {"regularisation": regularisation, "tokens_per_forward": 150}
    worker = TeacherWorker(make_config(initial, objective=settings, teacher=teacher), 0)
    worker.start(VERSION)
    return worker


def send(worker: TeacherWorker, folder: Path) -> None:
    """The weights of `folder` as version `NEXT`."""
    model = load_causal_lm(str(folder), torch.float32)
    tally = StreamTally()
    worker.begin_update(NEXT)
    for bucket in weight_buckets(((n, p.detach()) for n, p in model.named_parameters()), 50_000):
        tally.add(bucket)
        worker.receive_bucket(bucket)
    with torch.no_grad():
        log_probs = probe_log_probs(ScoringModel(model, 64), HINDSIGHT, torch.device("cpu"))
    worker.finish_update(manifest_of(tally, NEXT, HINDSIGHT, log_probs))


@lru_cache
def loaded(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


@torch.no_grad()
def logits(folder: Path, context: np.ndarray[Any, Any], rollout: Rollout) -> torch.Tensor:
    """float32 [T, V], each attempt by itself, over the temperature."""
    ids = torch.from_numpy(np.concatenate([context, rollout.response_ids]).astype(np.int64))
    found: torch.Tensor = loaded(folder)(ids[None]).logits[0, len(context) - 1 : -1]
    return found / TEMPERATURE


def policy_of(rollout: Rollout) -> PolicyScores:
    """A policy that chose ids of its own."""
    rng = np.random.default_rng(rollout.sample_index + 50)
    ids = np.stack([rng.permutation(VOCABULARY)[:TOP_K] for _ in rollout.response_ids]).astype(np.int32)
    return PolicyScores(
        task_id=rollout.task_id,
        sample_index=rollout.sample_index,
        sampled_log_probs=np.zeros(len(ids), np.float32),
        support_ids=ids,
        support_log_probs=None,
        tail_log_probs=None,
    )


def scored(worker: TeacherWorker, version: Version, rollouts: list[Rollout], support: str) -> list[TeacherScores]:
    policies = [policy_of(r) for r in rollouts] if support == "student" else []
    hindsights = [hindsight_of(r, HINDSIGHT) for r in rollouts]
    receipt, *scores = worker.score(version, TEMPERATURE, hindsights, *rollouts, *policies)
    assert isinstance(receipt, ScoreReceipt)
    assert receipt.num_tokens == sum(len(HINDSIGHT) + len(r.response_ids) for r in rollouts)
    return [s for s in scores if isinstance(s, TeacherScores)]


def expected_support(support: str, rollout: Rollout, log_q: torch.Tensor) -> np.ndarray[Any, Any]:
    match support:
        case "rollout":
            return support_ids_of(rollout)
        case "student":
            ids = policy_of(rollout).support_ids
            assert ids is not None
            return ids
        case "teacher":
            return log_q.topk(TOP_K).indices.numpy()
    return np.tile(np.arange(VOCABULARY), (len(log_q), 1))


def require_equal(scores: TeacherScores, rollout: Rollout, log_q: torch.Tensor, support: str) -> None:
    """`scores` against the whole distribution log_q [T, V]."""

    def same(found: np.ndarray[Any, Any], expected: torch.Tensor) -> None:
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected.numpy(), rtol=0, atol=5e-5)

    sampled = torch.from_numpy(rollout.response_ids.astype(np.int64))
    same(scores.sampled_log_probs, log_q.gather(1, sampled[:, None])[:, 0])
    same(scores.entropy, -(log_q.exp() * log_q).sum(-1))
    assert (scores.support_ids is not None) == (support == "teacher")
    if support == "none":
        assert scores.support_log_probs is None
        assert scores.tail_log_probs is None
        return
    ids = torch.from_numpy(expected_support(support, rollout, log_q).astype(np.int64))
    if scores.support_ids is not None:
        assert scores.support_ids.dtype == np.int32
        np.testing.assert_array_equal(scores.support_ids, ids.numpy())
    assert scores.support_log_probs is not None
    same(scores.support_log_probs, log_q.gather(1, ids))
    if support == "full":
        assert scores.tail_log_probs is None
        return
    assert scores.tail_log_probs is not None
    same(scores.tail_log_probs, log_q.scatter(1, ids, -torch.inf).logsumexp(-1))


def test_every_kind_is_covered() -> None:
    assert {get_args(kind.model_fields["kind"].annotation)[0] for kind in get_args(get_args(TeacherKind)[0])} == {
        *KINDS
    }


@pytest.mark.parametrize("support", SUPPORTS)
@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_those_of_whole_logits(folders: tuple[Path, Path], kind: str, support: str) -> None:
    initial, current = folders
    worker, rollouts, version = started(initial, kind, objective(support)), random_rollouts(5), VERSION
    if kind != "frozen":
        send(worker, current)
        version = NEXT
    shares = {initial: {"frozen": 1.0, "trust_region": 1 - RATE}.get(kind, 0.0)}
    shares[current] = 1 - shares[initial]
    for rollout, scores in zip(rollouts, scored(worker, version, rollouts, support), strict=True):
        assert (scores.task_id, scores.sample_index, scores.version) == (rollout.task_id, rollout.sample_index, version)
        parts = [share * logits(folder, HINDSIGHT, rollout) for folder, share in shares.items()]
        require_equal(scores, rollout, torch.stack(parts).sum(0).log_softmax(-1), support)


@pytest.mark.parametrize(("rate", "same_as"), [(0.0, "frozen"), (1.0, "live")])
def test_the_ends_of_the_trust_region(folders: tuple[Path, Path], rate: float, same_as: str) -> None:
    rollouts, found = random_rollouts(4), []
    for worker in (
        started(folders[0], "trust_region", objective("full"), rate=rate),
        started(folders[0], same_as, objective("full")),
    ):
        if worker._current is not None:
            send(worker, folders[1])
        found.append(scored(worker, VERSION if worker._current is None else NEXT, rollouts, "full"))
    for mixed, end in zip(*found, strict=True):
        assert mixed.support_log_probs is not None
        np.testing.assert_allclose(mixed.support_log_probs, end.support_log_probs, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "kind", "held"),
    [
        (objective("rollout"), "ema", "current"),
        (objective("rollout"), "live", "current"),
        (objective("rollout"), "frozen", "initial"),
        (objective("rollout"), "trust_region", "both"),
        (objective("rollout", reference_kl=0.1), "ema", "both"),
        (objective("rollout", reference_kl=0.1), "frozen", "initial"),
        ({"kind": "grpo", "reference_kl": 0.1}, "ema", "initial"),
    ],
)
def test_a_model_is_held_only_where_it_is_used(
    folders: tuple[Path, Path], settings: dict[str, Any], kind: str, held: str
) -> None:
    worker = started(folders[0], kind, settings)
    assert (worker._initial is not None, worker._current is not None) == (held != "current", held != "initial")


@pytest.mark.parametrize("kind", ["ema", "frozen", "trust_region"])
def test_the_reference_is_the_initial_model_under_the_own_prompt(folders: tuple[Path, Path], kind: str) -> None:
    initial, current = folders
    worker, rollouts = started(initial, kind, objective("rollout", reference_kl=0.1)), random_rollouts(5)
    before = worker.reference(TEMPERATURE, *rollouts)
    if kind != "frozen":
        send(worker, current)
    receipt, *after = worker.reference(TEMPERATURE, *rollouts)
    assert isinstance(receipt, ScoreReceipt)
    assert receipt.version == INITIAL
    assert receipt.num_tokens == sum(len(r.prompt_ids) + len(r.response_ids) for r in rollouts)
    for rollout, found, earlier in zip(rollouts, after, before[1:], strict=True):
        assert isinstance(found, ReferenceScores)
        assert isinstance(earlier, ReferenceScores)
        assert (found.task_id, found.sample_index) == (rollout.task_id, rollout.sample_index)
        np.testing.assert_array_equal(found.sampled_log_probs, earlier.sampled_log_probs)
        log_p = logits(initial, rollout.prompt_ids, rollout).log_softmax(-1)
        sampled = torch.from_numpy(rollout.response_ids.astype(np.int64))[:, None]
        np.testing.assert_allclose(found.sampled_log_probs, log_p.gather(1, sampled)[:, 0], rtol=0, atol=5e-5)


@pytest.mark.parametrize("settings", [objective("rollout"), {"kind": "grpo", "reference_kl": 0.1}])
def test_teachers_that_follow_nobody_take_no_weights(folders: tuple[Path, Path], settings: dict[str, Any]) -> None:
    with pytest.raises(WeightSyncError, match="unexpected tensor"):
        send(started(folders[0], "frozen", settings), folders[1])


def test_scores_need_the_policys_support_of_the_same_attempt(folders: tuple[Path, Path]) -> None:
    worker, (rollout, other) = started(folders[0], "ema", objective("student")), random_rollouts(2)
    hindsights = [hindsight_of(rollout, HINDSIGHT)]
    with pytest.raises(InfrastructureError, match="1 rollouts and 0 policy scores"):
        worker.score(VERSION, TEMPERATURE, hindsights, rollout)
    with pytest.raises(InfrastructureError, match="PolicyScores of task-1#1 came with rollout task-0#0"):
        worker.score(VERSION, TEMPERATURE, hindsights, rollout, policy_of(other))
    unsupported = started(folders[0], "ema", objective("rollout"))
    with pytest.raises(InfrastructureError, match="1 rollouts and 1 policy scores"):
        unsupported.score(VERSION, TEMPERATURE, hindsights, rollout, policy_of(rollout))

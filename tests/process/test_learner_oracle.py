"""The whole training step (packed, chunked, sharded, float32) against the oracle on full logits in float64."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from learner.backends.base import Backend
from learner.messages import OldLogProbsRequest, ScoreReceipt
from learner.old_log_probs import OldLogProbs
from learner.step import Trainer
from sdpo.config import RunConfig
from sdpo.reference import loss_from_logits
from sdpo.types import PolicyScores
from tests.fixtures.backend import full_gradients
from tests.fixtures.learner import VERSION, make_config, one_rank
from tests.fixtures.policy import (
    SHAPES,
    TEMPERATURE,
    Attempt,
    K,
    experience_of,
    full_batch,
    log_probs_of,
    logits_of,
    make_attempts,
    plain_model,
    policy_of,
    rollout_of,
    sampled,
)
from tests.fixtures.tiny_models import make_tiny_model

CPU = torch.device("cpu")
MICRO_BATCHES = [[[3, 0], [1], [4, 2]]]
REVERSE = {"divergence": "reverse_kl"}
SAMPLED = {**REVERSE, "top_k": 0}
FULL = {"support": "full", "top_k": 0}
OBJECTIVES: list[dict[str, Any]] = [
    {},
    {"is_clip": 1.1, "tis_clip": 1.1},
    {"divergence": "forward_kl", "tail": False, "is_clip": None, "tis_clip": None},
    {**REVERSE, "support": "student", "is_clip": 1.05},
    {"divergence": "forward_kl", "support": "teacher", "reference_kl": 0.1},
    {"support": "teacher", "tail": False, "grpo_weight": 0.5},
    {"js_teacher_weight": 0.2, **FULL},
    {**REVERSE, **FULL, "advantage_clip": 0.5, "grpo_weight": 0.3},
    {**SAMPLED, "estimator": "sampled_token", "is_clip": 1.1},
    {**SAMPLED, "estimator": "sequence", "advantage_clip": 1.0, "grpo_weight": 0.4},
    {**REVERSE, "estimator": "clipped_surrogate", "surrogate_clip_low": 0.05, "tis_clip": 1.1},
    {**REVERSE, "estimator": "clipped_surrogate", "support": "student", "surrogate_clip_high": 0.05},
    {"kind": "grpo", "clip_low": 0.05, "clip_high": 0.05, "dual_clip": 1.1, "reference_kl": 0.2},
    {"grpo_weight": 1.0, "tis_clip": None},
]
"""Every estimator, support, divergence and clip, the mix and the anchor."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"), dtype=torch.float32, hidden_size=32, head_dim=16)


@pytest.fixture(scope="module")
def attempts(folder: Path) -> list[Attempt]:
    return make_attempts(folder)


@pytest.fixture(scope="module")
def backend(folder: Path) -> Iterator[Backend]:
    """A real one whose weights never change: an update only takes note of the gradients."""
    with one_rank(config_of(folder, {})) as learner:
        yield learner._backend


def config_of(folder: Path, objective: dict[str, Any]) -> RunConfig:
    objective = (
        {"kind": "grpo"} | objective if objective.get("kind") == "grpo" else {"kind": "sdpo", "top_k": K} | objective
    )
    return make_config(
        folder,
        objective=objective,
        rollout={"sampling": {"temperature": TEMPERATURE}},
        learner={"logits_chunk_tokens": 7},
    )


def trained(
    backend: Backend, config: RunConfig, attempts: list[Attempt], old: list[Tensor] | None
) -> tuple[dict[str, float], dict[str, Tensor]]:
    """Metrics and gradients of one mini-batch of three micro-batches. `old` are the logits of pi_old, if recalled."""
    gradients: dict[str, Tensor] = {}

    def update(learning_rate: float) -> tuple[float, bool]:
        gradients.update(full_gradients(backend))
        backend.discard()
        return 1.0, True

    experiences = [
        experience_of(attempt, i, config.objective, None if old is None else old[i])
        for i, attempt in enumerate(attempts)
    ]
    with patch.object(backend, "update", update):
        metrics = Trainer(backend, config, CPU, lambda: None).train(experiences, MICRO_BATCHES)
    return metrics, gradients


@pytest.mark.parametrize("several_steps", [False, True], ids=["first", "later"])
@pytest.mark.parametrize("objective", OBJECTIVES, ids=str)
def test_training_step_equals_the_oracle(
    folder: Path, backend: Backend, attempts: list[Attempt], objective: dict[str, Any], several_steps: bool
) -> None:
    config, student = config_of(folder, objective), plain_model(folder)
    old = None
    if several_steps:
        old = [a.old for a in attempts]
    elif config.needs_old_policy:
        with torch.no_grad():
            old = [logits_of(student, a.prompt_ids, a.response_ids) for a in attempts]
    metrics, gradients = trained(backend, config, attempts, old)
    want = loss_from_logits(
        full_batch(attempts, student, config.objective, several_steps), config.objective, TEMPERATURE
    )
    want.backward()
    assert metrics["loss"] == pytest.approx(want.item(), rel=1e-5)
    wanted = {name: weight.grad for name, weight in student.named_parameters()}
    assert wanted.keys() == gradients.keys()
    assert distance(gradients, wanted) <= 5e-6


@pytest.mark.parametrize(
    "objective",
    [
        {**REVERSE, "support": "student"},
        {**REVERSE, "estimator": "clipped_surrogate"},
        {**REVERSE, "estimator": "clipped_surrogate", "support": "student"},
        {**SAMPLED, "estimator": "sequence"},
        {"kind": "grpo"},
    ],
    ids=str,
)
def test_recall_equals_whole_logits(
    folder: Path, backend: Backend, attempts: list[Attempt], objective: dict[str, Any]
) -> None:
    config, student = config_of(folder, objective), plain_model(folder)
    rollouts = [rollout_of(attempt, i) for i, attempt in enumerate(attempts)]
    request = OldLogProbsRequest(version=VERSION, micro_batches=((3, 0), (), (1, 4, 2)))
    receipt, *found = OldLogProbs(backend, config, CPU).compute_old_log_probs(request, rollouts)
    assert isinstance(receipt, ScoreReceipt)
    assert (receipt.version, receipt.num_tokens) == (VERSION, sum(map(sum, SHAPES)))
    for rollout, got in zip(rollouts, found, strict=True):
        with torch.no_grad():
            logits = logits_of(student, rollout.prompt_ids, rollout.response_ids)
        want = policy_of(rollout, logits, config.objective)
        for field in dataclasses.fields(PolicyScores):
            left, right = getattr(got, field.name), getattr(want, field.name)
            if isinstance(right, np.ndarray):
                assert left.dtype == right.dtype
                np.testing.assert_allclose(left, right, rtol=0, atol=1e-5)
            else:
                assert left == right


@pytest.mark.parametrize("grpo_weight", [0.0, 0.5])
def test_metrics_equal_numpy_on_whole_logits(
    folder: Path, backend: Backend, attempts: list[Attempt], grpo_weight: float
) -> None:
    """The teacher's metrics are over the tokens that it scored, the others over all that are trained."""
    objective = {
        **REVERSE,
        **FULL,
        "is_clip": 1.1,
        "tis_clip": 1.2,
        "reference_kl": 0.1,
        "grpo_weight": grpo_weight,
        "grpo": {"clip_low": 0.05, "clip_high": 0.05, "dual_clip": 1.2},
    }
    student = plain_model(folder)
    metrics, _ = trained(backend, config_of(folder, objective), attempts, [a.old for a in attempts])
    counted = [a for a in attempts if a.has_teacher or grpo_weight]
    scored = [a for a in attempts if a.has_teacher]
    values = {id(a): token_values(a, student) for a in counted}
    for name, value in values[id(counted[0])].items():
        over = scored if name.startswith(("teacher", "is_clipped")) else counted
        value = np.concatenate([values[id(a)][name][a.model_mask] for a in over])
        if name == "grpo_clipped_fraction" and not grpo_weight:
            assert name not in metrics
            continue
        assert metrics[name] == pytest.approx(value.mean(), rel=1e-5), name
        if name.endswith("fraction"):
            assert 0 < value.mean() < 1, name
    gaps = np.sort(np.concatenate([values[id(a)]["engine_gap_mean"][a.model_mask] for a in counted]))
    assert metrics["engine_gap_p99"] == pytest.approx(gaps[int(np.ceil(0.99 * len(gaps))) - 1], rel=1e-4)
    num_model = sum(int(a.model_mask.sum()) for a in attempts)
    num_signal = sum(int(a.model_mask.sum()) for a in attempts if a.has_teacher or (grpo_weight and a.advantage))
    assert metrics["active_tokens"] == len(gaps)
    assert metrics["signal_fraction"] == pytest.approx(num_signal / num_model)


def token_values(attempt: Attempt, student: PreTrainedModel) -> dict[str, np.ndarray[Any, Any]]:
    """[T] for each metric, at caps 1.1 (to pi_old) and 1.2 (to the engine) and clips of 0.05."""
    with torch.no_grad():
        own = logits_of(student, attempt.prompt_ids, attempt.response_ids)
    log_p, log_q = log_probs_of(own), log_probs_of(attempt.teacher)
    p_y, q_y, old_y, engine_y, reference_y = (
        sampled(x, attempt.response_ids) for x in (own, attempt.teacher, attempt.old, attempt.engine, attempt.reference)
    )
    ratio, anchor = (p_y - old_y).exp(), reference_y - p_y
    blamed = ((ratio < 0.95) | (ratio > 1.2)) & (attempt.advantage < 0)
    found = {
        "entropy": -(log_p.exp() * log_p).sum(-1),
        "teacher_entropy": -(log_q.exp() * log_q).sum(-1),
        "teacher_gap": q_y - p_y,
        "teacher_kl": (log_p.exp() * (log_p - log_q)).sum(-1),
        "engine_gap_mean": (old_y - engine_y).abs(),
        "is_clipped_fraction": ratio > 1.1,
        "tis_clipped_fraction": (old_y - engine_y).exp() > 1.2,
        "grpo_clipped_fraction": ratio > 1.05 if attempt.advantage > 0 else blamed,
        "reference_kl": anchor.exp() - anchor - 1,
    }
    return {name: value.double().numpy() for name, value in found.items()}


def test_whole_distributions_stay_on_the_host(
    folder: Path, backend: Backend, attempts: list[Attempt], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing that a loss moves to the device is larger than one chunk of 7 rows."""
    sizes: list[int] = []
    plain = torch.from_numpy

    def observed(array: np.ndarray[Any, Any]) -> Tensor:
        sizes.append(array.size)
        return plain(array)

    config = config_of(folder, dict(FULL))
    experiences = [experience_of(a, i, config.objective, None) for i, a in enumerate(attempts)]
    monkeypatch.setattr(torch, "from_numpy", observed)
    Trainer(backend, config, CPU, lambda: None).train(experiences, [[list(range(5))]])
    vocab = experiences[0].scores.support_log_probs.shape[1]  # type: ignore[union-attr]
    assert max(sizes) == 7 * vocab


def distance(got: dict[str, Tensor], want: dict[str, Tensor]) -> float:
    """Relative, over all parameters together."""
    left, right = (torch.cat([tensors[name].double().flatten() for name in want]) for tensors in (got, want))
    return float((left - right).norm() / right.norm())

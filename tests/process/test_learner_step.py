"""The training step on one rank: exact token means, masks, steps that are not taken, direction of learning."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from learner.messages import OldLogProbsRequest
from learner.step import Trainer
from learner.teacher import TeacherWorker
from sdpo.errors import InfrastructureError
from sdpo.reference import loss_from_logits
from sdpo.types import Experience, PolicyScores
from tests.fixtures.learner import (
    VERSION,
    ObservedRank,
    hindsight_of,
    make_config,
    masters,
    one_rank,
    random_experiences,
    scores_only,
    train_calls,
)
from tests.fixtures.policy import TEMPERATURE, experience_of, full_batch, logits_of, make_attempts, plain_model
from tests.fixtures.tiny_models import make_tiny_model
from tests.oracle.formulas import support_overlap

GRPO = {"kind": "grpo"}
MIX = {"kind": "sdpo", "top_k": 5, "grpo_weight": 0.3}
FULL = {"kind": "sdpo", "top_k": 0, "support": "full"}
ALONE = 1
"""A token budget that gives every sequence its own micro-batch."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"), dtype=torch.float32, hidden_size=32, head_dim=16)


def train(learner: ObservedRank, experiences: Sequence[Experience], **plan: Any) -> dict[str, float]:
    return learner.train(*train_calls(experiences, **plan)[0])


def with_policy(learner: ObservedRank, experiences: Sequence[Experience]) -> list[Experience]:
    """The experiences with the present policy recalled."""
    request = OldLogProbsRequest(version=VERSION, micro_batches=tuple((i,) for i in range(len(experiences))))
    _, *found = learner.compute_old_log_probs(request, *[e.rollout for e in experiences])
    return [replace(e, policy=p) for e, p in zip(experiences, found, strict=True) if isinstance(p, PolicyScores)]


def fully_scored(count: int, vocab: int = 384) -> list[Experience]:
    """As random experiences, with the teacher's whole distributions."""
    rng = np.random.default_rng(0)
    experiences = random_experiences(count)
    for i, experience in enumerate(experiences):
        whole = np.log(rng.dirichlet(np.ones(vocab), len(experience.rollout.response_ids))).astype(np.float32)
        assert experience.scores is not None
        scores = replace(experience.scores, support_log_probs=whole, tail_log_probs=None)
        experiences[i] = replace(experience, scores=scores)
    return experiences


@pytest.mark.parametrize("objective", [{"kind": "sdpo", "top_k": 5}, MIX, FULL, GRPO], ids=str)
def test_micro_batches_chunks_and_order_change_nothing(folder: Path, objective: dict[str, Any]) -> None:
    scored = [i % 4 != 1 for i in range(10)]
    experiences = fully_scored(10) if objective is FULL else random_experiences(10, scored)
    order = np.random.default_rng(1).permutation(10)
    results = []
    for chunk, tokens, attempts in (
        (5, ALONE, experiences),
        (8, 60, [experiences[i] for i in order]),
        (256, 8192, experiences),
    ):
        config = make_config(folder, objective=objective, learner={"logits_chunk_tokens": chunk})
        with one_rank(config) as learner:
            call = train_calls(attempts, tokens=tokens)[0]
            results.append((len(call[0].mini_batches[0]), learner.train(*call), learner.gradients()[0]))
    assert results[0][0] > results[1][0] > results[2][0] == 1
    *others, (_, want, want_gradient) = results
    for _, metrics, gradient in others:
        for name in want.keys() - {"seconds", "learning_rate"}:
            assert metrics[name] == pytest.approx(want[name], rel=1e-5, abs=1e-6), name
        assert distance(gradient, want_gradient) <= 1e-5


def distance(got: np.ndarray[Any, Any], want: np.ndarray[Any, Any]) -> float:
    return float(np.linalg.norm(got - want) / np.linalg.norm(want))


def test_loss_counts_only_scored_attempts_and_model_tokens(folder: Path) -> None:
    experiences = random_experiences(6, [i in (0, 2) for i in range(6)])
    results = []
    for attempts in (experiences, [experiences[0], experiences[2]]):
        with one_rank(make_config(folder)) as learner:
            results.append((train(learner, attempts), learner.gradients()[0]))
    (metrics, gradient), (alone, want) = results
    assert len(experiences[0].rollout.segments) == 3
    masks = [e.rollout.model_mask for e in experiences]
    assert metrics["active_tokens"] == masks[0].sum() + masks[2].sum() == alone["active_tokens"]
    assert metrics["signal_fraction"] == pytest.approx(metrics["active_tokens"] / sum(m.sum() for m in masks))
    assert alone["signal_fraction"] == 1
    assert metrics["loss"] == pytest.approx(alone["loss"], rel=1e-5)
    assert distance(gradient, want) <= 1e-5


def test_mini_batches_equal_steps_one_by_one(folder: Path) -> None:
    """Each step sees the weights that the one before it left, and pi_old from before them all."""
    config = make_config(
        folder,
        objective={"kind": "sdpo", "top_k": 5, "is_clip": 1.01},
        batch={"tasks": 3, "mini_batch_tasks": 1},
        learner={"optimizer": {"learning_rate": 1e-2, "warmup_steps": 4}},
    )
    parts = [[0, 1, 2], [3, 4], [5, 6, 7, 8]]
    with one_rank(config) as learner:
        experiences = with_policy(learner, random_experiences(9))
        whole = train(learner, experiences, mini_batches=parts, tokens=80)
        weights, gradients = masters(learner), learner.gradients()
    with one_rank(config) as learner:
        steps = [train(learner, [experiences[i] for i in part], tokens=80) for part in parts]
        assert all(torch.equal(weights[name], tensor) for name, tensor in masters(learner).items())
        np.testing.assert_array_equal(gradients, learner.gradients())
    assert [s["learning_rate"] for s in steps] == pytest.approx([2.5e-3, 5e-3, 7.5e-3])
    assert (whole["steps_taken"], whole["optimizer_step"], whole["learning_rate"]) == (3, 3, steps[-1]["learning_rate"])
    tokens = [s["active_tokens"] for s in steps]
    for name in ("loss", "teacher_gap", "entropy", "is_clipped_fraction", "engine_gap_mean"):
        assert whole[name] == pytest.approx(np.average([s[name] for s in steps], weights=tokens), rel=1e-5), name
    assert steps[0]["is_clipped_fraction"] == 0 < steps[2]["is_clipped_fraction"]
    norms = [s["grad_norm"] for s in steps]
    assert (whole["grad_norm"], whole["grad_norm_max"]) == pytest.approx((np.mean(norms), max(norms)))


def test_second_step_of_a_batch_is_corrected_against_the_old_policy(folder: Path) -> None:
    """Same attempts twice: the gradient of the second step is the oracle's, with pi_old from before the first."""
    objective = {"kind": "sdpo", "top_k": 5, "divergence": "reverse_kl", "support": "student", "is_clip": 1.05}
    config = make_config(folder, objective=objective, rollout={"sampling": {"temperature": TEMPERATURE}})
    attempts, before = make_attempts(folder), plain_model(folder)
    olds = [logits_of(before, a.prompt_ids, a.response_ids).detach() for a in attempts]
    with one_rank(config) as learner:
        weights: list[dict[str, torch.Tensor]] = []
        trainer = Trainer(learner._backend, config, torch.device("cpu"), lambda: weights.append(masters(learner)))
        known = [
            experience_of(a, i, config.objective, old) for i, (a, old) in enumerate(zip(attempts, olds, strict=True))
        ]
        metrics = trainer.train(with_policy(learner, known), [[[0, 1], [2, 3, 4]]] * 2)
        got = learner.gradients()[1]
    after = plain_model(folder)
    after.load_state_dict(weights[0], strict=False)
    moved = [replace(attempt, old=old) for attempt, old in zip(attempts, olds, strict=True)]
    loss_from_logits(full_batch(moved, after, config.objective, True), config.objective, TEMPERATURE).backward()
    want = torch.cat([weight.grad.flatten() for weight in after.parameters() if weight.grad is not None]).numpy()
    assert metrics["is_clipped_fraction"] > 0.1
    assert distance(got, want) <= 5e-6


def test_identical_contexts_give_no_loss_and_no_gradient(folder: Path) -> None:
    config = make_config(folder)
    experiences = [replace(e, scores=None) for e in random_experiences(8)]
    rollouts = [e.rollout for e in experiences]
    teacher = TeacherWorker(config, 0)
    teacher.start(VERSION)
    scores = scores_only(teacher.score(VERSION, 1.0, [hindsight_of(r) for r in rollouts], *rollouts))
    with one_rank(config) as learner:
        metrics = train(learner, [replace(e, scores=s) for e, s in zip(experiences, scores, strict=True)])
    assert abs(metrics["loss"]) <= 1e-6
    assert abs(metrics["teacher_kl"]) <= 1e-6
    assert metrics["grad_norm"] <= 1e-5
    assert abs(metrics["teacher_gap"]) <= 1e-5
    assert metrics["entropy"] == pytest.approx(metrics["teacher_entropy"], rel=1e-5)


@pytest.mark.parametrize("sign", [1.0, -1.0], ids=["praised", "blamed"])
@pytest.mark.parametrize(
    "objective", [{"kind": "sdpo", "top_k": 0, "divergence": "reverse_kl", "estimator": "sampled_token"}, GRPO], ids=str
)
def test_one_step_follows_the_advantage(folder: Path, objective: dict[str, Any], sign: float) -> None:
    """With a positive advantage on every token their log-probs rise, with a negative one they fall."""
    config = make_config(
        folder, objective=objective | {"tis_clip": None}, learner={"optimizer": {"learning_rate": 1e-4}}
    )
    with one_rank(config) as learner:
        before = with_policy(learner, random_experiences(6))
        train(learner, [judged(e, sign) for e in before])
        after = with_policy(learner, before)
    old, new = (
        np.concatenate([e.policy.sampled_log_probs[e.rollout.model_mask] for e in experiences if e.policy is not None])
        for experiences in (before, after)
    )
    assert (sign * (new - old)).mean() > 1e-3
    assert (sign * (new - old) > 0).mean() > 0.8


def judged(experience: Experience, advantage: float) -> Experience:
    """`advantage` on every token, group-relative and as log q - log p."""
    assert experience.policy is not None
    assert experience.scores is not None
    scores = replace(experience.scores, sampled_log_probs=experience.policy.sampled_log_probs + np.float32(advantage))
    return replace(experience, scores=scores, advantage=advantage)


def test_batch_without_signal_changes_nothing(folder: Path) -> None:
    experiences = random_experiences(4, [False] * 4)
    with one_rank(make_config(folder)) as learner:
        before = masters(learner)
        metrics = train(learner, experiences)
        assert learner.update_teacher() is False
        assert all(torch.equal(before[n], w) for n, w in masters(learner).items())
    assert "loss" not in metrics
    assert [metrics[k] for k in ("active_tokens", "steps_taken", "steps_idle", "optimizer_step")] == [0, 0, 1, 0]
    assert metrics["signal_fraction"] == 0


def test_steps_that_are_not_taken_are_counted_and_leave_no_gradient(folder: Path) -> None:
    """One mini-batch has no signal, one a gradient that is not finite: the third steps as if it were alone."""
    experiences = random_experiences(4, [True, False, True, True])
    assert experiences[0].scores is not None
    assert experiences[0].scores.support_log_probs is not None
    experiences[0].scores.support_log_probs[0, 0] = np.nan
    with one_rank(make_config(folder)) as learner:
        train(learner, experiences[2:])
        want = masters(learner)
    with one_rank(make_config(folder)) as learner:
        taken: list[int] = []
        learner._trainer._on_step = lambda: taken.append(learner._backend.optimizer_step)
        metrics = train(learner, experiences, mini_batches=[[0], [1], [2, 3]])
        assert taken == [1]
        assert all(torch.equal(want[n], w) for n, w in masters(learner).items())
        assert learner.update_teacher() is True
        assert learner.update_teacher() is False
    assert [metrics[f"steps_{k}"] for k in ("taken", "idle", "not_finite")] == [1, 1, 1]
    assert np.isfinite(metrics["grad_norm"])


@pytest.mark.parametrize(("every", "weight"), [("batch", 0.9801), ("optimizer_step", 0.5255964875)])
def test_average_moves_per_batch_or_per_optimizer_step(tmp_path: Path, every: str, weight: float) -> None:
    """Golden case G6: two batches of 32 steps. All masters are 1 before the first step, and 0 after each."""
    folder = make_tiny_model(tmp_path, dtype=torch.float32, num_layers=1, hidden_size=16, head_dim=8)
    teacher = {"regularisation": {"kind": "ema", "rate": 0.01, "every": every}}
    experiences = random_experiences(32)
    with one_rank(make_config(folder, teacher=teacher)) as learner:
        assert learner._ema is not None
        for tensor in (*learner._backend.masters.values(), *learner._ema.tensors.values()):
            tensor.fill_(1.0)

        def update(learning_rate: float) -> tuple[float, bool]:
            learner._backend.discard()
            for master in learner._backend.masters.values():
                master.fill_(0.0)
            return 1.0, True

        learner._backend.update = update  # type: ignore[method-assign]
        for _ in range(2):
            assert train(learner, experiences, mini_batches=[[i] for i in range(32)])["steps_taken"] == 32
            learner.update_teacher()
        for tensor in learner._ema.tensors.values():
            assert float(tensor.mean()) == pytest.approx(weight, rel=1e-5)


def test_warmup_and_clipping(folder: Path) -> None:
    """AdamW's first moment after one step is (1 - beta1) times the clipped gradient."""
    optimizer = {"learning_rate": 1e-3, "warmup_steps": 4, "max_grad_norm": 1e-4}
    experiences = random_experiences(4)
    with one_rank(make_config(folder, learner={"optimizer": optimizer})) as learner:
        steps = [train(learner, experiences) for _ in range(5)]
        norms = np.linalg.norm(learner.gradients(), axis=1)
    assert [s["learning_rate"] for s in steps] == pytest.approx([2.5e-4, 5e-4, 7.5e-4, 1e-3, 1e-3])
    assert [s["grad_norm"] for s in steps] == pytest.approx(norms.tolist(), rel=1e-4)


def test_objects_that_do_not_belong_together_are_refused(folder: Path) -> None:
    request, *objects = train_calls(random_experiences(2))[0]
    first, its_scores, second, other_scores = objects
    with one_rank(make_config(folder)) as learner:
        for wrong, message in (
            ([first, other_scores, second, its_scores], "scores of task-1#1 came with rollout task-0#0"),
            ([first, its_scores, second], "3 objects for 2 rollouts and 2 attachments"),
            ([first, second, its_scores, other_scores], "a Rollout came as scores of rollout task-0#0"),
            ([its_scores, first, second, other_scores], "a TeacherScores came instead of a rollout"),
            ([first, replace(its_scores, entropy=its_scores.entropy[1:]), second, other_scores], "scores.entropy of"),
        ):
            with pytest.raises(InfrastructureError, match=message):
                learner.train(request, *wrong)


@pytest.mark.parametrize(
    ("objective", "absent"),
    [
        ({"top_k": 5, "support": "student"}, "without policy"),
        ({"top_k": 5, "support": "teacher"}, "scores.support_ids"),
        ({"top_k": 4}, "support of 5 tokens, objective.top_k=4"),
        ({"top_k": 5, "reference_kl": 0.1}, "reference"),
        ({"top_k": 0, "estimator": "sequence", "divergence": "reverse_kl"}, "without policy"),
    ],
    ids=str,
)
def test_experience_without_what_the_objective_needs_is_refused(
    folder: Path, objective: dict[str, Any], absent: str
) -> None:
    config = make_config(folder, objective={"kind": "sdpo"} | objective)
    with one_rank(config) as learner, pytest.raises(InfrastructureError, match=absent):
        train(learner, random_experiences(2))


def test_several_steps_without_the_policy_before_them_are_refused(folder: Path) -> None:
    config = make_config(folder, batch={"tasks": 2, "mini_batch_tasks": 1})
    with one_rank(config) as learner, pytest.raises(InfrastructureError, match="task-0#0 came without policy"):
        train(learner, random_experiences(2), mini_batches=[[0], [1]])


def test_some_attempts_old_and_others_not_is_refused(folder: Path) -> None:
    with one_rank(make_config(folder)) as learner:
        recalled, other = with_policy(learner, random_experiences(2))
        with pytest.raises(InfrastructureError, match="task-1#1 came without policy, others came with it"):
            train(learner, [recalled, replace(other, policy=None)])


def test_support_overlap() -> None:
    left = np.array([[0, 1, 2, 3], [4, 5, 6, 7]], np.int32)
    right = np.array([[3, 2, 1, 0], [7, 9, 8, 10]], np.int32)
    assert support_overlap(left, left) == 1
    assert support_overlap(left, right) == pytest.approx((1 + 0.25) / 2)
    with pytest.raises(ValueError, match="allowed"):
        support_overlap(left, right[:, :2])

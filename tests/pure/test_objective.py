"""What each objective does to a token: weights, clips, the mix, the anchor, masks."""

import dataclasses
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sdpo.advantages import group_relative_advantages, sequence_advantages
from sdpo.token_targets import TokenTargets
from tests.fixtures.objective import (
    DIVERGENCES,
    ESTIMATORS,
    SAMPLED,
    SEQUENCE,
    SURROGATE,
    Objective,
    Packed,
    Student,
    grpo,
    make_batch,
    pack,
    sdpo,
)
from tests.oracle.formulas import mixed_advantages, token_mean

UNWEIGHTED: dict[str, object] = {"is_clip": None, "tis_clip": None}


def gradient(packed: Packed, objective: Objective, logits: Tensor) -> Tensor:
    (grad,) = torch.autograd.grad(packed.losses(objective).sum(), logits, retain_graph=True)
    return grad


def one_token(ratio: float, advantage: float, objective: Objective, **targets: Tensor) -> tuple[float, float]:
    """Loss of one token whose ratio to the old policy is `ratio`, and its slope in the log-prob."""
    log_p = torch.tensor([math.log(ratio) - 2.0], dtype=torch.float64, requires_grad=True)
    old = torch.tensor([-2.0], dtype=torch.float64)
    fields = {"behaviour": old, "old": old, "advantage": torch.tensor([advantage], dtype=torch.float64), **targets}
    loss = objective.token_losses(Student(log_p, None, None), TokenTargets(has_teacher=torch.tensor([True]), **fields))
    (slope,) = torch.autograd.grad(loss.sum(), log_p)
    return loss.item(), slope.item()


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "slope"),
    [
        (1.0, 0.5, -0.5, -0.5),
        (1.2, 0.5, -0.6, -0.6),
        (1.5, 0.5, -0.64, 0.0),  # beyond 1 + clip_high: flat
        (0.5, 0.5, -0.25, -0.25),  # below, with a positive advantage: not clipped
        (1.0, -0.5, 0.5, 0.5),
        (0.5, -0.5, 0.4, 0.0),  # below 1 - clip_low: flat
        (2.0, -0.5, 1.0, 1.0),  # above, with a negative advantage: not clipped
        (5.0, -0.5, 1.5, 0.0),  # beyond dual_clip: flat
        (5.0, 0.0, 0.0, 0.0),
    ],
)
def test_grpo_clips(ratio: float, advantage: float, loss: float, slope: float) -> None:
    assert one_token(ratio, advantage, grpo(tis_clip=None)) == pytest.approx((loss, slope), abs=1e-12)


def test_grpo_on_the_first_step_is_the_plain_policy_gradient() -> None:
    batch = make_batch()
    packed = pack(batch, grpo())
    weight = (packed.student.sampled.detach() - packed.targets.behaviour).exp().clamp(max=2.0)
    torch.testing.assert_close(packed.losses(grpo()).detach(), -packed.targets.advantage * weight)
    want = (-packed.targets.advantage * weight * packed.student.sampled).sum()
    (want_grad,) = torch.autograd.grad(want, batch.student_logits, retain_graph=True)
    torch.testing.assert_close(gradient(packed, grpo(), batch.student_logits), want_grad)


@pytest.mark.parametrize("log_ratio", [-1000.0, 1000.0])
@pytest.mark.parametrize("advantage", [-0.5, 0.5])
def test_grpo_stays_finite_however_far_the_policy_went(log_ratio: float, advantage: float) -> None:
    old = torch.tensor([-1000.0 if log_ratio > 0 else -1.0], dtype=torch.float64)
    log_p = (old + log_ratio).requires_grad_()
    targets = TokenTargets(
        behaviour=old, old=old, reference=old, advantage=old * 0 + advantage, has_teacher=torch.tensor([True])
    )
    loss = grpo(reference_kl=0.1).token_losses(Student(log_p, None, None), targets)
    (slope,) = torch.autograd.grad(loss.sum(), log_p)
    assert torch.isfinite(loss).all()
    assert torch.isfinite(slope).all()


@pytest.mark.parametrize("estimator", [e for e in ESTIMATORS if e != SURROGATE], ids=str)
@pytest.mark.parametrize("several_steps", [False, True])
def test_weights_multiply_value_and_gradient(estimator: dict[str, object], several_steps: bool) -> None:
    """w = min(pi_theta / pi_old, is_clip), 1 on the first step; u = min(pi_old / pi_roll, tis_clip)."""
    batch = make_batch(several_steps=several_steps)
    packed = pack(batch, sdpo(**estimator))
    plain, weighted = sdpo(**estimator, **UNWEIGHTED), sdpo(**estimator, is_clip=1.1, tis_clip=0.9)
    now, engine = packed.student.sampled.detach(), packed.targets.behaviour
    old = now if packed.targets.old is None else packed.targets.old
    weight = torch.minimum((now - old).exp(), torch.tensor(1.1)) * torch.minimum(
        (old - engine).exp(), torch.tensor(0.9)
    )
    if estimator.get("estimator") == "clipped_surrogate":
        # Its bins' ratios do the work of w.
        weight = torch.minimum((old - engine).exp(), torch.tensor(0.9))
    torch.testing.assert_close(packed.losses(weighted), weight * packed.losses(plain))
    for token in range(int(packed.targets.has_teacher.sum())):
        plain_grad, weighted_grad = (
            torch.autograd.grad(packed.losses(o)[token], batch.student_logits, retain_graph=True)[0]
            for o in (plain, weighted)
        )
        torch.testing.assert_close(weighted_grad, weight[token] * plain_grad)


@pytest.mark.parametrize("value", [-1e30, 1e30, -math.inf])
@pytest.mark.parametrize("estimator", ESTIMATORS, ids=str)
def test_absurd_log_probs_of_others_stay_finite(estimator: dict[str, object], value: float) -> None:
    batch = make_batch(several_steps=True)
    assert batch.old_log_probs is not None
    for name in ("rollout_log_probs", "old_log_probs"):
        absurd: dict[str, Any] = {name: torch.full_like(batch.rollout_log_probs, value)}
        packed = pack(dataclasses.replace(batch, **absurd), sdpo(**{**estimator, "advantage_clip": None}))
        if estimator.get("estimator") == "sequence" and name == "old_log_probs":
            continue  # an infinite advantage is one
        assert torch.isfinite(packed.losses(sdpo(**estimator))).all()
        assert torch.isfinite(gradient(packed, sdpo(**estimator), batch.student_logits)).all()


def test_tokens_without_a_teacher_follow_the_group_alone() -> None:
    batch = make_batch()
    for estimator in ESTIMATORS:
        pure, mixed = sdpo(**estimator), sdpo(**estimator, grpo_weight=0.25, grpo={"clip_low": 0.1})
        packed = pack(batch, pure)
        without = ~packed.targets.has_teacher
        assert not packed.losses(pure)[without].any()
        assert gradient(packed, pure, batch.student_logits)[2].abs().max() == 0
        alone = packed.losses(grpo(clip_low=0.1))[without]
        torch.testing.assert_close(packed.losses(mixed)[without], 0.25 * alone)


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=str)
def test_mix_ends_at_grpo_and_at_sdpo(estimator: dict[str, object]) -> None:
    batch = make_batch(several_steps=True)
    packed = pack(batch, sdpo(**estimator))
    torch.testing.assert_close(packed.losses(sdpo(**estimator, grpo_weight=1.0)), packed.losses(grpo()))
    nearly = packed.losses(sdpo(**estimator, grpo_weight=1e-12)).detach()
    has_teacher = packed.targets.has_teacher
    torch.testing.assert_close(nearly[has_teacher], packed.losses(sdpo(**estimator)).detach()[has_teacher])


@pytest.mark.parametrize("grpo_weight", [0.1, 0.9])
def test_gradient_of_the_mix_is_that_of_mixed_advantages(grpo_weight: float) -> None:
    """On-policy (eq. 3): -A log p(y) with A the mix of both advantages."""
    batch = make_batch()
    batch = dataclasses.replace(batch, has_teacher=torch.ones(3, dtype=torch.bool))
    objective = sdpo(**SAMPLED, **UNWEIGHTED, grpo_weight=grpo_weight)
    packed = pack(batch, objective)
    log_q = packed.targets.teacher_sampled
    assert log_q is not None
    distilled = (log_q - packed.student.sampled.detach()).numpy()
    groups = packed.targets.advantage.tolist()
    mixed = torch.stack(
        [torch.from_numpy(mixed_advantages(g, distilled, grpo_weight))[i] for i, g in enumerate(groups)]
    )
    (want,) = torch.autograd.grad(-(mixed * packed.student.sampled).sum(), batch.student_logits, retain_graph=True)
    torch.testing.assert_close(gradient(packed, objective, batch.student_logits), want)


@pytest.mark.parametrize("support", [{}, {"tail": False}, {"support": "full", "top_k": 0}], ids=str)
def test_a_wide_advantage_clip_is_the_reverse_kl_and_a_narrow_one_bounds_it(support: dict[str, object]) -> None:
    batch, kl = make_batch(), sdpo(divergence="reverse_kl", **support, **UNWEIGHTED)
    wide, narrow = (sdpo(divergence="reverse_kl", **support, **UNWEIGHTED, advantage_clip=c) for c in (1e3, 1e-3))
    packed = pack(batch, kl)
    torch.testing.assert_close(packed.losses(wide), packed.losses(kl))
    torch.testing.assert_close(*(gradient(packed, o, batch.student_logits) for o in (wide, kl)))
    assert packed.losses(narrow).abs().max() <= 1e-3
    assert gradient(packed, narrow, batch.student_logits).abs().max() <= 1e-3


def test_sequence_advantage_is_the_clipped_mean_over_model_tokens() -> None:
    old, mask = torch.zeros(4).numpy(), torch.tensor([True, True, False, True]).numpy()
    log_q = torch.tensor([-7.0, 0.5, 100.0, 0.5]).numpy()
    assert sequence_advantages(log_q, old, mask, None).tolist() == [-2.0] * 4
    assert sequence_advantages(log_q, old, mask, 4.0).tolist() == [-1.0] * 4
    with pytest.raises(ValueError, match="at least one token"):
        sequence_advantages(log_q, old, mask & False, None)


def test_sequence_estimator_spreads_the_mean_over_the_response() -> None:
    batch = make_batch()
    objective = sdpo(**SEQUENCE, **UNWEIGHTED)
    packed = pack(batch, objective)
    first = slice(0, int(batch.response_mask[0].sum()))
    assert packed.targets.teacher_sampled is not None
    advantage = (packed.targets.teacher_sampled - packed.student.sampled.detach())[first].mean()
    torch.testing.assert_close(packed.losses(objective)[first], -advantage * packed.student.sampled[first])


def test_surrogate_truncates_old_bins_at_the_engines() -> None:
    """support rollout: pi_old's bin at most tis_clip times the engine's, so a bin it hardly samples hardly counts."""
    batch = make_batch(several_steps=True)
    objective, free = sdpo(**SURROGATE, tis_clip=1.0), sdpo(**SURROGATE, tis_clip=None)
    packed = pack(batch, objective)
    support, tail = packed.targets.behaviour_support, packed.targets.behaviour_tail
    assert support is not None
    assert tail is not None

    def scaled(log_factor: float) -> Tensor:
        targets = dataclasses.replace(
            packed.targets, behaviour_support=support + log_factor, behaviour_tail=tail + log_factor
        )
        return objective.token_losses(packed.student, targets)

    torch.testing.assert_close(scaled(50.0), packed.losses(free))
    assert scaled(-50.0).abs().max() < 1e-15
    assert not torch.allclose(scaled(0.0), packed.losses(free))


def test_surrogate_on_the_first_step_is_the_reverse_kl() -> None:
    batch, objective = make_batch(), sdpo(**SURROGATE, **UNWEIGHTED)
    packed, kl = pack(batch, objective), sdpo(divergence="reverse_kl", **UNWEIGHTED)
    torch.testing.assert_close(packed.losses(objective), packed.losses(kl))
    torch.testing.assert_close(*(gradient(packed, o, batch.student_logits) for o in (objective, kl)))


def test_surrogate_stops_where_every_ratio_is_clipped() -> None:
    """Bins that moved with their advantage beyond the clip get no more push."""
    advantage_sign = torch.tensor([[1.0, -1.0]], dtype=torch.float64)
    log_p = torch.tensor([[0.55, 0.45]], dtype=torch.float64).log().requires_grad_()
    log_q = (log_p + advantage_sign).detach()
    tiny = torch.tensor([-1e3], dtype=torch.float64)
    targets = TokenTargets(
        behaviour=tiny,
        advantage=tiny,
        has_teacher=torch.tensor([True]),
        teacher_support=log_q,
        teacher_tail=tiny,
        old_support=(log_p - 0.5 * advantage_sign).detach(),
        old_tail=tiny,
    )
    loss = sdpo(**SURROGATE, tis_clip=None).token_losses(Student(tiny, log_p, tiny), targets)
    (slope,) = torch.autograd.grad(loss.sum(), log_p)
    assert not slope.any()


def test_surrogate_leaves_out_bins_that_the_old_policy_never_sampled() -> None:
    """Even where the teacher has no mass either, and the KL would be infinite."""
    log_p = torch.tensor([[0.25, 0.25, 0.5]], dtype=torch.float64).log().requires_grad_()
    others = torch.tensor([[0.0, 0.4, 0.6]], dtype=torch.float64).log()
    targets = TokenTargets(
        behaviour=others[:, 2],
        advantage=others[:, 2],
        has_teacher=torch.tensor([True]),
        teacher_support=others[:, :2],
        teacher_tail=others[:, 2],
        old_support=others[:, :2],
        old_tail=others[:, 2],
    )
    objective = sdpo(**SURROGATE, support="student", **UNWEIGHTED)
    loss = objective.token_losses(Student(log_p[:, 2], log_p[:, :2], log_p[:, 2]), targets)
    (slope,) = torch.autograd.grad(loss.sum(), log_p)
    assert torch.isfinite(loss).all()
    assert slope[0, 0] == 0
    assert torch.isfinite(slope).all()


@pytest.mark.parametrize("objective", [grpo(), sdpo(), sdpo(grpo_weight=0.5)], ids=lambda o: o.kind)
def test_anchor_is_a_kl_that_pulls_towards_the_initial_model(objective: Objective) -> None:
    batch = make_batch()
    anchored = objective.model_copy(update={"reference_kl": 0.1})
    packed = pack(batch, objective)
    reference = packed.targets.reference
    assert reference is not None
    added = ((packed.losses(anchored) - packed.losses(objective)) / 0.1)[packed.counted]
    d = (reference - packed.student.sampled)[packed.counted]
    torch.testing.assert_close(added, d.exp() - d - 1)
    slopes = torch.autograd.grad(added.sum(), packed.student.sampled)[0][packed.counted]
    assert (slopes.sign() == -d.sign()).all()  # below the reference: a step down the slope raises log p


def test_a_missing_target_is_named() -> None:
    packed = pack(make_batch(), sdpo())
    for objective, name in (
        (sdpo(), "teacher_support"),
        (sdpo(**SAMPLED), "teacher_sampled"),
        (sdpo(**SEQUENCE), "sequence_advantage"),
        (grpo(reference_kl=0.1), "reference"),
    ):
        bare = TokenTargets(
            behaviour=packed.targets.behaviour,
            advantage=packed.targets.advantage,
            has_teacher=packed.targets.has_teacher,
        )
        with pytest.raises(ValueError, match=f"^{name}=None"):
            objective.token_losses(packed.student, bare)


@pytest.mark.parametrize("shift", [1, -1])
@pytest.mark.parametrize("divergence", DIVERGENCES, ids=str)
def test_a_shift_by_one_position_is_a_loss(shift: int, divergence: dict[str, object]) -> None:
    batch = make_batch()
    batch = dataclasses.replace(batch, teacher_logits=batch.student_logits.detach().roll(shift, dims=1))
    assert pack(batch, sdpo()).losses(sdpo(**divergence)).mean().item() > 0.05


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 100), st.integers(0, 4), st.booleans())
def test_padding_of_any_value_on_either_side_changes_no_mean(seed: int, padding: int, left: bool) -> None:
    batch = make_batch(seed)
    losses = torch.zeros(batch.response_mask.shape, dtype=torch.float64)
    losses[batch.response_mask] = pack(batch, grpo()).losses(grpo()).detach()
    junk = torch.full((len(losses), padding), math.nan, dtype=torch.float64)
    nothing = torch.zeros(junk.shape, dtype=torch.bool)
    order = (1, 0) if left else (0, 1)
    wide, mask = (torch.cat([(a, b)[i] for i in order], 1) for a, b in ((losses, junk), (batch.response_mask, nothing)))
    torch.testing.assert_close(token_mean(wide, mask), token_mean(losses, batch.response_mask))


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 100), st.lists(st.sampled_from([0, 1]), min_size=9, max_size=9))
def test_any_split_over_ranks_gives_the_same_mean(seed: int, rank_of: list[int]) -> None:
    packed = pack(make_batch(seed), sdpo())
    losses, counted, of_rank = packed.losses(sdpo()).detach(), packed.counted, torch.tensor(rank_of)
    parts = [token_mean(losses[of_rank == r], counted[of_rank == r]) for r in (0, 1)]
    numerator, count = token_mean(losses, counted)
    torch.testing.assert_close((parts[0][0] + parts[1][0]) / (parts[0][1] + parts[1][1]), numerator / count)


@settings(deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=1, max_size=16))
def test_group_advantages_sum_to_zero(rewards: list[float]) -> None:
    advantages = group_relative_advantages(rewards)
    assert abs(float(advantages.sum(dtype=float))) < 1e-5
    assert len(advantages) == len(rewards)


@pytest.mark.parametrize("rewards", [[], [0.0, math.nan], [math.inf]])
def test_group_advantages_refuse_what_is_no_reward(rewards: list[float]) -> None:
    with pytest.raises(ValueError, match="rewards="):
        group_relative_advantages(rewards)

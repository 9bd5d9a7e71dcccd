"""Token losses against the readable reference, and what must hold for any input."""

import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sdpo.advantages import group_relative_advantages
from sdpo.config import GrpoObjective, SdpoObjective
from sdpo.objective import grpo_token_loss, sdpo_loss_reference, sdpo_token_loss, token_mean

B, T, V = 3, 5, 11
DIVERGENCES: list[dict[str, object]] = [
    {"divergence": "forward_kl"},
    {"divergence": "reverse_kl"},
    {"divergence": "js"},
    {"divergence": "js", "js_teacher_weight": 0.2},
]


@dataclasses.dataclass(frozen=True)
class Batch:
    """Logits [B, T, V], ids [B, T], masks [B, T] and [B], behaviour log-probs [B, T]."""

    student: Tensor
    teacher: Tensor
    ids: Tensor
    response_mask: Tensor
    sample_mask: Tensor
    behaviour: Tensor

    def take(self, order: list[int]) -> "Batch":
        return Batch(**{f.name: getattr(self, f.name)[order] for f in dataclasses.fields(self)})


def make_batch(seed: int = 0, temperature: float = 1.0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    student = 2 * torch.randn(B, T, V, generator=generator, dtype=torch.float64)
    ids = torch.randint(V, (B, T), generator=generator)
    drift = 0.5 * torch.randn(B, T, generator=generator, dtype=torch.float64)
    log_p = (student / temperature).log_softmax(-1)
    return Batch(
        student=student.requires_grad_(),
        teacher=2 * torch.randn(B, T, V, generator=generator, dtype=torch.float64),
        ids=ids,
        response_mask=torch.arange(T) < torch.tensor([[5], [2], [3]]),
        sample_mask=torch.tensor([True, True, False]),
        behaviour=log_p.gather(-1, ids.unsqueeze(-1)).squeeze(-1).detach() + drift,
    )


def fast_token_losses(batch: Batch, objective: SdpoObjective, temperature: float = 1.0) -> Tensor:
    """Losses [B, T] from the packed path: support from the student, tails over the complement."""
    log_p = (batch.student / temperature).log_softmax(-1)
    log_q = (batch.teacher / temperature).log_softmax(-1)
    support = log_p.topk(objective.top_k).indices
    outside = torch.ones_like(log_p, dtype=torch.bool).scatter(-1, support, False)

    def tail(log_probs: Tensor) -> Tensor:
        return torch.logsumexp(log_probs.masked_fill(~outside, -math.inf), -1).flatten()

    return sdpo_token_loss(
        log_p.gather(-1, support).flatten(0, 1),
        tail(log_p),
        log_q.gather(-1, support).flatten(0, 1),
        tail(log_q),
        log_p.gather(-1, batch.ids.unsqueeze(-1)).flatten(),
        batch.behaviour.flatten(),
        objective,
    ).view(batch.ids.shape)


def fast_loss(batch: Batch, objective: SdpoObjective, temperature: float = 1.0) -> Tensor:
    mask = batch.response_mask & batch.sample_mask.unsqueeze(-1)
    numerator, count = token_mean(fast_token_losses(batch, objective, temperature), mask)
    return numerator / count.clamp(min=1)


def reference_loss(batch: Batch, objective: SdpoObjective, temperature: float = 1.0) -> Tensor:
    return sdpo_loss_reference(
        batch.student,
        batch.teacher,
        batch.ids,
        batch.response_mask,
        batch.sample_mask,
        batch.behaviour,
        objective,
        temperature,
    )


def sdpo(**changes: object) -> SdpoObjective:
    return SdpoObjective.model_validate({"kind": "sdpo", "top_k": 4, **changes})


@pytest.mark.parametrize("divergence", DIVERGENCES, ids=str)
@pytest.mark.parametrize("tail", [True, False])
@pytest.mark.parametrize("is_clip", [None, 1.3])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_packed_loss_and_gradient_equal_the_reference(
    divergence: dict[str, object], tail: bool, is_clip: float | None, temperature: float
) -> None:
    objective, batch = sdpo(**divergence, tail=tail, is_clip=is_clip), make_batch(temperature=temperature)
    got, want = fast_loss(batch, objective, temperature), reference_loss(batch, objective, temperature)
    torch.testing.assert_close(got, want, rtol=0, atol=1e-12)
    (got_grad,), (want_grad,) = torch.autograd.grad(got, batch.student), torch.autograd.grad(want, batch.student)
    torch.testing.assert_close(got_grad, want_grad, rtol=0, atol=1e-12)


@pytest.mark.parametrize("divergence", DIVERGENCES, ids=str)
@pytest.mark.parametrize("tail", [True, False])
def test_identical_contexts_give_no_loss_and_no_gradient(divergence: dict[str, object], tail: bool) -> None:
    batch = make_batch()
    batch = dataclasses.replace(batch, teacher=batch.student.detach() + 3.0)
    loss = fast_loss(batch, sdpo(**divergence, tail=tail))
    (grad,) = torch.autograd.grad(loss, batch.student)
    assert abs(loss.item()) < 1e-12
    assert grad.abs().max().item() < 1e-12


@pytest.mark.parametrize("shift", [1, -1])
def test_a_shift_by_one_position_is_a_loss(shift: int) -> None:
    batch = make_batch()
    batch = dataclasses.replace(batch, teacher=batch.student.detach().roll(shift, dims=1))
    assert fast_loss(batch, sdpo()).item() > 0.05


@pytest.mark.parametrize("divergence", DIVERGENCES, ids=str)
def test_teacher_and_behaviour_get_no_gradient(divergence: dict[str, object]) -> None:
    batch = make_batch()
    batch.teacher.requires_grad_()
    batch.behaviour.requires_grad_()
    for loss in (fast_loss(batch, sdpo(**divergence)), reference_loss(batch, sdpo(**divergence, is_clip=None))):
        loss.backward()
        assert batch.teacher.grad is None
        assert batch.behaviour.grad is None
        assert batch.student.grad is not None


def test_importance_weight_is_detached_and_capped() -> None:
    batch = make_batch()
    plain, weighted = sdpo(is_clip=None), sdpo(is_clip=1.1)
    token = (0, 1)
    (plain_grad,) = torch.autograd.grad(fast_token_losses(batch, plain)[token], batch.student)
    (weighted_grad,) = torch.autograd.grad(fast_token_losses(batch, weighted)[token], batch.student)
    sampled = batch.student.detach().log_softmax(-1)[token][batch.ids[token]]
    weight = (sampled - batch.behaviour[token]).exp().clamp(max=1.1)
    torch.testing.assert_close(weighted_grad, weight * plain_grad)


def test_absurd_behaviour_log_probs_stay_finite() -> None:
    batch = make_batch()
    for value in (-1e30, 1e30):
        behaviour = torch.full_like(batch.behaviour, value)
        assert torch.isfinite(fast_loss(dataclasses.replace(batch, behaviour=behaviour), sdpo())).all()


@settings(deadline=None, max_examples=25)
@given(st.permutations(range(B)), st.integers(0, 100), st.integers(0, 4))
def test_order_and_padding_do_not_matter(order: list[int], seed: int, padding: int) -> None:
    batch, objective = make_batch(seed), sdpo()
    mask = batch.response_mask & batch.sample_mask.unsqueeze(-1)
    losses = fast_token_losses(batch, objective).detach()
    want = token_mean(losses, mask)
    torch.testing.assert_close(fast_loss(batch.take(list(order)), objective), want[0] / want[1])
    junk = torch.full((B, padding), math.nan, dtype=losses.dtype)
    nothing = torch.zeros(B, padding, dtype=torch.bool)
    for padded in (torch.cat([losses, junk], 1), torch.cat([junk, losses], 1)):
        wide = torch.cat([mask, nothing], 1) if padded[0, 0] == losses[0, 0] else torch.cat([nothing, mask], 1)
        torch.testing.assert_close(token_mean(padded, wide), want)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 100), st.lists(st.sampled_from([0, 1]), min_size=B, max_size=B))
def test_any_split_over_ranks_gives_the_same_mean(seed: int, rank_of: list[int]) -> None:
    batch = make_batch(seed)
    mask = batch.response_mask & batch.sample_mask.unsqueeze(-1)
    losses = fast_token_losses(batch, sdpo()).detach()
    of_rank = torch.tensor(rank_of)
    parts = [token_mean(losses[of_rank == r], mask[of_rank == r]) for r in (0, 1)]
    numerator, count = token_mean(losses, mask)
    torch.testing.assert_close(sum(p[0] for p in parts) / sum(p[1] for p in parts), numerator / count)


def test_everything_masked_is_zero_and_attached() -> None:
    batch = dataclasses.replace(make_batch(), sample_mask=torch.zeros(B, dtype=torch.bool))
    loss = fast_loss(batch, sdpo())
    assert loss.item() == 0
    (grad,) = torch.autograd.grad(loss, batch.student)
    assert grad.abs().max().item() == 0


def test_one_step_raises_tokens_that_the_teacher_prefers() -> None:
    batch = make_batch()
    for divergence in DIVERGENCES:
        objective = sdpo(**divergence, top_k=V - 1, is_clip=None)
        (grad,) = torch.autograd.grad(fast_token_losses(batch, objective)[0, 0], batch.student)
        before = batch.student.detach()[0, 0].log_softmax(-1)
        after = (batch.student.detach() - 0.1 * grad)[0, 0].log_softmax(-1)
        gap = batch.teacher[0, 0].log_softmax(-1) - before
        token = int((before.exp() * gap).argmax())
        assert gap[token] > 0
        assert after[token] > before[token]


GRPO = GrpoObjective(kind="grpo", clip_low=0.2, clip_high=0.28, dual_clip=3.0, tis_clip=None)


def grpo_loss_and_slope(ratio: float, advantage: float, objective: GrpoObjective = GRPO) -> tuple[float, float]:
    """Loss of one token whose ratio to the old policy is `ratio`, and its slope in the log-prob."""
    log_p = torch.tensor([math.log(ratio) - 2.0], dtype=torch.float64, requires_grad=True)
    old = torch.tensor([-2.0], dtype=torch.float64)
    loss = grpo_token_loss(log_p, old, old, torch.tensor([advantage], dtype=torch.float64), objective)
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
    assert grpo_loss_and_slope(ratio, advantage) == pytest.approx((loss, slope), abs=1e-12)


def test_grpo_one_step_raises_tokens_with_positive_advantage() -> None:
    z = torch.zeros(4, V, dtype=torch.float64, requires_grad=True)
    ids = torch.tensor([1, 2, 3, 4])
    log_p = z.log_softmax(-1)[range(4), ids]
    advantage = torch.from_numpy(group_relative_advantages([1.0, 0.0, 0.0, 1.0])).double()
    loss = grpo_token_loss(log_p, log_p, log_p.detach(), advantage, GrpoObjective(kind="grpo"))
    (grad,) = torch.autograd.grad(loss.sum(), z)
    moved = (z - 0.5 * grad).log_softmax(-1)[range(4), ids] - log_p
    assert (moved.sign() == advantage.sign()).all()


def test_grpo_truncated_weight_is_one_sided_and_detached() -> None:
    log_p = torch.tensor([-1.0, -1.0], dtype=torch.float64, requires_grad=True)
    behaviour = torch.tensor([-0.5, -3.0], dtype=torch.float64)
    ones = torch.ones(2, dtype=torch.float64)
    loss = grpo_token_loss(log_p, log_p, behaviour, ones, GrpoObjective(kind="grpo", tis_clip=2.0))
    (grad,) = torch.autograd.grad(loss.sum(), log_p)
    expected = torch.tensor([-math.exp(-0.5), -2.0], dtype=torch.float64)
    torch.testing.assert_close(loss.detach(), expected)
    torch.testing.assert_close(grad, expected)


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


@pytest.mark.parametrize("log_ratio", [-1000.0, 1000.0])
@pytest.mark.parametrize("advantage", [-0.5, 0.5])
def test_grpo_stays_finite_however_far_the_policy_went(log_ratio: float, advantage: float) -> None:
    log_p = torch.tensor([log_ratio - 1], requires_grad=True)
    old = torch.tensor([-1.0])
    loss = grpo_token_loss(log_p, old, old, torch.tensor([advantage]), GrpoObjective(kind="grpo"))
    (slope,) = torch.autograd.grad(loss.sum(), log_p)
    assert torch.isfinite(loss).all()
    assert torch.isfinite(slope).all()

"""Divergences: gradients, empty bins, bounds and the support's tail."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sdpo.bins import append_tail, renormalise, tail_log_prob
from sdpo.divergence import divergence, forward_kl, generalised_js, reverse_kl

KINDS: list[tuple[str, float]] = [("forward_kl", 0.5), ("reverse_kl", 0.5), ("js", 0.5), ("js", 0.1)]
logits = st.lists(st.floats(-8, 8), min_size=6, max_size=6)
INF = math.inf


def log_probs(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64).log_softmax(-1)


def random_logits(*shape: int, seed: int = 0) -> Tensor:
    return 2 * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(("kind", "weight"), KINDS)
def test_gradcheck_through_student_logits(kind: str, weight: float) -> None:
    log_q = random_logits(3, 5, seed=1).log_softmax(-1)

    def loss(z: Tensor) -> Tensor:
        return divergence(z.log_softmax(-1), log_q, kind, weight)

    assert torch.autograd.gradcheck(loss, random_logits(3, 5).requires_grad_())


@pytest.mark.parametrize(("kind", "weight"), KINDS)
def test_gradcheck_over_support_and_tail(kind: str, weight: float) -> None:
    log_q = random_logits(3, 6, seed=1).log_softmax(-1)[:, :2]

    def loss(z: Tensor) -> Tensor:
        log_p = z.log_softmax(-1)[:, :2]
        with_tail = divergence(
            append_tail(log_p, tail_log_prob(log_p)), append_tail(log_q, tail_log_prob(log_q)), kind, weight
        )
        return with_tail + divergence(renormalise(log_p), renormalise(log_q), kind, weight)

    assert torch.autograd.gradcheck(loss, random_logits(3, 6).requires_grad_())


@pytest.mark.parametrize(("kind", "weight"), KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bins_without_mass_on_both_sides_change_nothing(kind: str, weight: float, dtype: torch.dtype) -> None:
    p, q = random_logits(4).to(dtype), random_logits(4, seed=1).to(dtype)
    hole = torch.tensor([-INF], dtype=dtype)
    z = torch.cat([p, hole]).requires_grad_()
    loss = divergence(z.log_softmax(-1), torch.cat([q, hole]).log_softmax(-1), kind, weight)
    expected = divergence(p.log_softmax(-1), q.log_softmax(-1), kind, weight)
    torch.testing.assert_close(loss, expected)
    (grad,) = torch.autograd.grad(loss, z)
    assert torch.isfinite(grad).all()
    assert grad[-1] == 0


def test_one_sided_holes() -> None:
    holed = torch.tensor([-INF, 0.0, 1.0], dtype=torch.float64).log_softmax(-1)
    whole = torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64).log_softmax(-1)
    assert reverse_kl(whole, holed) == INF
    assert forward_kl(holed, whole) == INF
    for finite in (reverse_kl(holed, whole), forward_kl(whole, holed)):
        assert 0 < finite < INF
    for js in (generalised_js(whole, holed, 0.5), generalised_js(holed, whole, 0.5)):
        assert 0 < js < math.log(2)


@pytest.mark.parametrize("kind", ["reverse_kl", "js"])
def test_gradients_stay_finite_where_only_the_student_has_a_hole(kind: str) -> None:
    z = torch.tensor([-INF, 0.0, 1.0], dtype=torch.float64, requires_grad=True)
    loss = divergence(z.log_softmax(-1), log_probs([1.0, 0.0, 1.0]), kind, 0.5)
    (grad,) = torch.autograd.grad(loss, z)
    assert torch.isfinite(grad).all()


@pytest.mark.parametrize("kind", ["forward_kl", "js"])
def test_gradients_stay_finite_where_only_the_teacher_has_a_hole(kind: str) -> None:
    z = torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64, requires_grad=True)
    holed = torch.tensor([-INF, 0.0, 1.0], dtype=torch.float64).log_softmax(-1)
    (grad,) = torch.autograd.grad(divergence(z.log_softmax(-1), holed, kind, 0.5), z)
    assert torch.isfinite(grad).all()
    assert grad.abs().sum() > 0


@settings(deadline=None)
@given(logits, logits)
def test_js_is_symmetric_and_bounded_by_ln_2(a: list[float], b: list[float]) -> None:
    log_p, log_q = log_probs(a), log_probs(b)
    forth, back = generalised_js(log_p, log_q, 0.5), generalised_js(log_q, log_p, 0.5)
    torch.testing.assert_close(forth, back, rtol=0, atol=1e-12)
    assert -1e-12 <= forth.item() <= math.log(2)


@settings(deadline=None)
@given(logits, logits)
def test_js_over_its_weight_tends_to_the_kls(a: list[float], b: list[float]) -> None:
    log_p, log_q = log_probs(a), log_probs(b)
    for limit, exact in (
        (generalised_js(log_p, log_q, 1e-8) / 1e-8, forward_kl(log_p, log_q)),
        (generalised_js(log_p, log_q, 1 - 1e-8) / 1e-8, reverse_kl(log_p, log_q)),
    ):
        torch.testing.assert_close(limit, exact, rtol=0.01, atol=1e-5)


@pytest.mark.parametrize("weight", [0.0, 1.0, -0.1, 1.5])
def test_js_refuses_weights_where_it_vanishes(weight: float) -> None:
    with pytest.raises(ValueError, match="strictly between 0 and 1"):
        generalised_js(log_probs([0.0, 1.0]), log_probs([1.0, 0.0]), weight)


@settings(deadline=None)
@given(logits, logits, st.sets(st.integers(0, 5), min_size=1), st.sampled_from(KINDS))
def test_any_support_with_tail_is_a_lower_bound(
    a: list[float], b: list[float], support: set[int], kind: tuple[str, float]
) -> None:
    log_p, log_q = log_probs(a), log_probs(b)
    full = divergence(log_p, log_q, *kind)
    inside = sorted(support)
    p, q = log_p[inside], log_q[inside]
    bounded = divergence(append_tail(p, tail_log_prob(p)), append_tail(q, tail_log_prob(q)), *kind)
    assert bounded.item() <= full.item() + 1e-5
    if len(inside) == 6:
        torch.testing.assert_close(bounded, full, rtol=1e-5, atol=1e-5)


@settings(deadline=None)
@given(logits, st.integers(0, 4))
def test_tail_is_the_mass_of_the_complement(a: list[float], last: int) -> None:
    log_p = log_probs(a)
    outside = torch.logsumexp(log_p[last + 1 :], -1)
    if outside.item() > math.log(1e-5):
        torch.testing.assert_close(tail_log_prob(log_p[: last + 1]), outside, rtol=1e-6, atol=1e-9)


@settings(deadline=None, max_examples=20)
@given(st.floats(-1e-6, 1e-6))
def test_tail_of_a_support_that_holds_everything_is_finite(excess: float) -> None:
    for dtype in (torch.float32, torch.float64):
        log_p = torch.tensor([excess], dtype=dtype, requires_grad=True)
        tail = tail_log_prob(log_p)
        tail.backward()
        assert -17 < tail.item() < -13
        assert log_p.grad is not None
        assert torch.isfinite(log_p.grad).all()


@pytest.mark.parametrize("make_bins", [renormalise, lambda x: append_tail(x, tail_log_prob(x))])
def test_bins_sum_to_one(make_bins: Callable[[Tensor], Tensor]) -> None:
    support = random_logits(7, 9).log_softmax(-1)[:, :4]
    torch.testing.assert_close(make_bins(support).exp().sum(-1), torch.ones(7, dtype=torch.float64))

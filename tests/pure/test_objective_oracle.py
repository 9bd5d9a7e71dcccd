"""The packed path against the oracle, for anything that the config allows; and gradients against finite differences."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sdpo.reference import loss_from_logits
from tests.fixtures.objective import (
    ESTIMATORS,
    B,
    Objective,
    T,
    V,
    gradients_check,
    grpo,
    make_batch,
    objectives,
    pack,
    packed_loss,
    sdpo,
    with_logits,
)


@settings(deadline=None, max_examples=80)
@given(
    objectives(), st.integers(0, 10**6), st.booleans(), st.sampled_from([1.0, 0.7]), st.sampled_from([None, 0.0, 0.3])
)
def test_packed_path_equals_the_oracle(
    objective: Objective, seed: int, several_steps: bool, temperature: float, trust_region: float | None
) -> None:
    batch = make_batch(seed, several_steps=several_steps, shape=(2, 3, 6))
    if trust_region is not None:
        initial = make_batch(seed + 1, shape=(2, 3, 6)).teacher_logits
        batch = dataclasses.replace(batch, initial_teacher_logits=initial, trust_region_rate=trust_region)
    got, want = packed_loss(batch, objective, temperature), loss_from_logits(batch, objective, temperature)
    torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)
    (got_grad,), (want_grad,) = (torch.autograd.grad(x, batch.student_logits) for x in (got, want))
    torch.testing.assert_close(got_grad, want_grad, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=str)
def test_packed_path_in_float32_equals_the_oracle_in_float64(estimator: dict[str, object]) -> None:
    objective = sdpo(**estimator, grpo_weight=0.1, reference_kl=0.1)
    for several_steps in (False, True):
        low, high = (make_batch(several_steps=several_steps, dtype=d) for d in (torch.float32, torch.float64))
        got, want = packed_loss(low, objective), loss_from_logits(high, objective, 1.0)
        torch.testing.assert_close(got.double(), want, rtol=0, atol=1e-5)
        (got_grad,) = torch.autograd.grad(got, low.student_logits)
        (want_grad,) = torch.autograd.grad(want, high.student_logits)
        torch.testing.assert_close(got_grad.double(), want_grad, rtol=0, atol=1e-5)


@pytest.mark.parametrize("several_steps", [False, True])
@pytest.mark.parametrize(
    "objective",
    [*(sdpo(**e) for e in ESTIMATORS), sdpo(grpo_weight=0.9, reference_kl=0.1), grpo(), grpo(reference_kl=0.1)],
    ids=lambda o: o.model_dump_json(exclude_defaults=True),
)
def test_gradcheck_through_student_logits(objective: Objective, several_steps: bool) -> None:
    batch = make_batch(several_steps=several_steps, shape=(2, 2, 5))

    def losses(logits: Tensor) -> Tensor:
        packed = pack(with_logits(batch, logits), objective)
        return packed.losses(objective)[packed.counted]

    assert gradients_check(losses, batch.student_logits.detach())


def test_gradcheck_would_notice_a_wrong_gradient() -> None:
    class Doubled(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: object, *grads: Tensor) -> Tensor:
            return 2 * grads[0]

    with pytest.raises(RuntimeError, match="Jacobian mismatch"):
        gradients_check(lambda z: (z.detach() * Doubled.apply(z)).sum(), torch.ones(2, dtype=torch.float64))


def test_nothing_to_train_on_is_zero_and_attached() -> None:
    batch = make_batch()
    batch = dataclasses.replace(batch, has_teacher=torch.zeros(B, dtype=torch.bool))
    for loss in (packed_loss(batch, sdpo()), loss_from_logits(batch, sdpo(), 1.0)):
        (grad,) = torch.autograd.grad(loss, batch.student_logits)
        assert loss.item() == 0
        assert torch.equal(grad, torch.zeros(B, T, V, dtype=torch.float64))

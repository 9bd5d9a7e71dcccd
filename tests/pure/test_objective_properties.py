"""What holds for any input of every objective."""

import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sdpo.reference import FullBatch
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
    V,
    grpo,
    make_batch,
    objectives,
    of_sampled,
    pack,
    sdpo,
)

seeds = st.integers(0, 10**6)
LOG_PROBS = st.lists(st.floats(-8, 8), min_size=V, max_size=V)


def gradient(losses: Tensor, logits: Tensor) -> Tensor:
    return torch.autograd.grad(losses.sum(), logits, retain_graph=True)[0]


def one_position(student: Tensor, teacher: Tensor, support: list[int], objective: Objective) -> Tensor:
    """The token loss [] of one position over the given ids, tails over the complement. Logits [V]."""
    outside = [v for v in range(len(student)) if v not in support]
    p, q = student.log_softmax(-1), teacher.log_softmax(-1)
    zero = torch.zeros(1, dtype=student.dtype)
    targets = TokenTargets(
        behaviour=p[:1].detach(),
        advantage=zero,
        has_teacher=torch.tensor([True]),
        teacher_support=q[support].unsqueeze(0),
        teacher_tail=q[outside].logsumexp(-1, keepdim=True),
    )
    tail = p[outside].logsumexp(-1, keepdim=True)
    return objective.token_losses(Student(p[:1], p[support].unsqueeze(0), tail), targets)[0]


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=str)
@pytest.mark.parametrize("several_steps", [False, True])
def test_identical_contexts_teach_nothing(estimator: dict[str, object], several_steps: bool) -> None:
    """Support estimators: no loss and no gradient. The sampled ones: no gradient, as the advantage is 0."""
    batch, objective = make_batch(several_steps=several_steps), sdpo(**estimator)
    batch = dataclasses.replace(batch, teacher_logits=batch.student_logits.detach() + 3.0)
    if estimator.get("estimator") == "sequence":
        batch = dataclasses.replace(batch, old_log_probs=None)  # it compares the teacher with pi_old
    losses = pack(batch, objective).losses(objective)
    assert losses.abs().max() < 1e-12
    assert gradient(losses, batch.student_logits).abs().max() < 1e-12


@pytest.mark.parametrize(
    "objective",
    [*(sdpo(**e, grpo_weight=0.1, reference_kl=0.1) for e in ESTIMATORS), grpo(reference_kl=0.1)],
    ids=lambda o: o.model_dump_json(exclude_defaults=True),
)
def test_only_the_student_gets_a_gradient(objective: Objective) -> None:
    packed = pack(make_batch(several_steps=True), objective)
    fields = {f.name: getattr(packed.targets, f.name) for f in dataclasses.fields(TokenTargets)}
    leaves = {name: t.detach().clone() for name, t in fields.items() if t is not None}
    floating = [t.requires_grad_() for t in leaves.values() if t.is_floating_point()]
    sampled, support, tail = (None if x is None else x.detach().requires_grad_() for x in packed.student)
    assert sampled is not None
    losses = objective.token_losses(Student(sampled, support, tail), TokenTargets(**leaves))
    losses.sum().backward()
    assert floating
    assert all(t.grad is None for t in floating)
    assert any(x is not None and x.grad is not None for x in (sampled, support, tail))


@settings(deadline=None, max_examples=40)
@given(objectives(), seeds, st.permutations(range(9)), st.integers(1, 9))
def test_order_and_chunks_of_tokens_do_not_matter(
    objective: Objective, seed: int, order: list[int], chunk: int
) -> None:
    packed = pack(make_batch(seed, several_steps=True), objective)
    losses = packed.losses(objective)
    chunks = [slice(start, start + chunk) for start in range(0, 9, chunk)]
    parts = [objective.token_losses(_rows(packed, rows), packed.targets.part(rows)) for rows in chunks]
    torch.testing.assert_close(torch.cat(parts), losses, rtol=0, atol=1e-12)
    index = torch.tensor(order)
    fields = {f.name: getattr(packed.targets, f.name) for f in dataclasses.fields(TokenTargets)}
    targets = dataclasses.replace(packed.targets, **{name: t[index] for name, t in fields.items() if t is not None})
    torch.testing.assert_close(objective.token_losses(_rows(packed, index), targets), losses[index])


def _rows(packed: Packed, rows: slice | Tensor) -> Student:
    return Student(*(None if x is None else x[rows] for x in packed.student))  # type: ignore[arg-type]


@settings(deadline=None, max_examples=40)
@given(LOG_PROBS, LOG_PROBS, st.permutations(range(V)), st.sampled_from([*DIVERGENCES, SURROGATE]))
def test_support_of_all_tokens_is_the_full_divergence(
    a: list[float], b: list[float], support: list[int], divergence: dict[str, object]
) -> None:
    z, teacher = torch.tensor(a, dtype=torch.float64).requires_grad_(), torch.tensor(b, dtype=torch.float64)
    unweighted: dict[str, object] = {"is_clip": None, "tis_clip": None}
    everything = sdpo(**divergence, top_k=V, **unweighted)
    full = sdpo(**{**divergence, "estimator": "support"}, top_k=0, support="full", **unweighted)
    got, want = one_position(z, teacher, list(support), everything), one_position(z, teacher, list(range(V)), full)
    torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(gradient(got, z), gradient(want, z), rtol=1e-9, atol=1e-9)


@settings(deadline=None)
@given(LOG_PROBS, LOG_PROBS, st.permutations(range(V)), st.integers(1, V), st.sampled_from(DIVERGENCES))
def test_any_support_with_tail_is_a_lower_bound_and_grows_with_it(
    a: list[float], b: list[float], order: list[int], size: int, divergence: dict[str, object]
) -> None:
    z, teacher = torch.tensor(a, dtype=torch.float64), torch.tensor(b, dtype=torch.float64)
    sizes = [one_position(z, teacher, list(order[:k]), sdpo(**divergence, top_k=k)).item() for k in (1, size, V)]
    assert -1e-12 <= sizes[0] <= sizes[1] + 1e-12 <= sizes[2] + 2e-12


@pytest.mark.parametrize("divergence", DIVERGENCES, ids=str)
def test_renormalised_support_is_no_bound(divergence: dict[str, object]) -> None:
    """Two tokens without mass to speak of, over which the two differ: the whole distribution hardly does."""
    z = torch.tensor([10.0, 0.0, 0.0], dtype=torch.float64)
    teacher = torch.tensor([10.0, 2.0, -2.0], dtype=torch.float64)
    renormalised = one_position(z, teacher, [1, 2], sdpo(**divergence, top_k=2, tail=False))
    full = one_position(z, teacher, [0, 1, 2], sdpo(**divergence, top_k=3))
    assert renormalised > 100 * full


@pytest.mark.parametrize("several_steps", [False, True])
@pytest.mark.parametrize("estimator", [SAMPLED, SEQUENCE, {**SAMPLED, "advantage_clip": 0.7}], ids=str)
def test_one_step_moves_sampled_tokens_with_their_advantage(estimator: dict[str, object], several_steps: bool) -> None:
    for seed in range(20):
        objective = sdpo(**estimator)
        batch = make_batch(seed, several_steps=several_steps)
        packed = pack(batch, objective)
        targets = packed.targets
        assert targets.teacher_sampled is not None
        advantage = targets.teacher_sampled - packed.student.sampled.detach()
        if targets.sequence_advantage is not None:
            advantage = targets.sequence_advantage
        moved = _log_probs_after_a_step(batch, packed, objective) - packed.student.sampled
        assert (moved.sign() == advantage.sign())[targets.has_teacher].all()


@pytest.mark.parametrize(
    "estimator",
    [*DIVERGENCES, {**SURROGATE, "support": "student"}, {"divergence": "reverse_kl", "advantage_clip": 5.0}],
)
def test_one_step_moves_the_distribution_towards_the_teacher(estimator: dict[str, object]) -> None:
    """No sign is flipped: a small step down the slope shortens the distance."""
    for seed in range(20):
        objective = sdpo(**estimator, top_k=V - 1)
        generator = torch.Generator().manual_seed(seed)
        z, teacher = (2 * torch.randn(V, generator=generator, dtype=torch.float64) for _ in range(2))
        z.requires_grad_()
        before = one_position(z, teacher, list(range(V - 1)), objective)
        stepped = z.detach() - 0.05 * gradient(before, z)
        exact = sdpo(divergence=estimator["divergence"], top_k=V - 1)
        distance = [one_position(x, teacher, list(range(V - 1)), exact).item() for x in (z, stepped)]
        assert distance[1] < distance[0]


def _log_probs_after_a_step(batch: FullBatch, packed: Packed, objective: Objective) -> Tensor:
    """[N] of the sampled tokens; each position's logits moved a little down the slope."""
    stepped = batch.student_logits.detach() - 0.01 * gradient(packed.losses(objective), batch.student_logits)
    return of_sampled(stepped, batch.response_ids)[batch.response_mask]


EMPTY = -math.inf


@pytest.mark.parametrize("estimator", [e for e in ESTIMATORS if "top_k" not in e], ids=str)
@pytest.mark.parametrize("hole", ["both", "student", "tails"])
def test_bins_without_mass_never_make_a_gradient_nan(estimator: dict[str, object], hole: str) -> None:
    """Of both sides, of the student alone (where the divergence stays finite), and tails of supports that hold all."""
    if hole == "student" and estimator["divergence"] == "forward_kl":
        estimator = {**estimator, "divergence": "reverse_kl"}
    z = torch.tensor([[EMPTY, 1.0, 0.5, 0.2]], dtype=torch.float64).requires_grad_()
    log_p = z.log_softmax(-1)
    log_q = torch.tensor([[EMPTY if hole != "student" else 0.3, 0.1, 1.5, 0.7]], dtype=torch.float64).log_softmax(-1)
    bins = [1, 2, 3] if hole == "tails" else [0, 1, 2]
    rest = 0 if hole == "tails" else 3
    targets = TokenTargets(
        behaviour=log_p[:, 1].detach(),
        advantage=torch.zeros(1, dtype=torch.float64),
        has_teacher=torch.tensor([True]),
        teacher_support=log_q[:, bins],
        teacher_tail=log_q[:, rest],
        behaviour_support=log_p[:, bins].detach(),
        behaviour_tail=log_p[:, rest].detach(),
    )
    loss = sdpo(**estimator).token_losses(Student(log_p[:, 1], log_p[:, bins], log_p[:, rest]), targets)
    assert torch.isfinite(loss).all()
    assert torch.isfinite(gradient(loss, z)).all()
    assert gradient(loss, z)[0, 0] == 0

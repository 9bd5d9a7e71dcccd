"""The analytic cases of tests/golden/sdpo_cases.json: values to 1e-9 in float64, to 1e-5 in float32.

The file's gradients are central differences that agree with the closed forms to about 1e-8; so they are compared
at that tolerance, and the closed forms, recomputed here, at 1e-12.
"""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from learner.ema import WeightEma
from sdpo.advantages import group_relative_advantages, sequence_advantages
from sdpo.bins import append_tail, tail_log_prob
from sdpo.config import GrpoObjective, HindsightConfig, SdpoObjective
from sdpo.divergence import divergence
from sdpo.importance import truncated_weight
from sdpo.reprompt import Attempt, route_group
from sdpo.token_targets import TokenTargets
from tests.fixtures.objective import Objective, Student
from tests.oracle.formulas import geometric_mixture, mixed_advantages, token_mean

CASES: dict[str, Any] = json.loads((Path(__file__).parents[1] / "golden" / "sdpo_cases.json").read_text())
G1, G2, G3, G4, G5, G6, G7, G8, G9 = (next(v for k, v in CASES.items() if k.startswith(f"G{n}_")) for n in range(1, 10))
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-5}
GRADIENT_TOLERANCE = {torch.float64: 2e-8, torch.float32: 1e-5}
DTYPES = list(TOLERANCE)


def kind_of(alpha: str) -> tuple[str, float]:
    if alpha == "0.0":
        return "forward_kl", 0.5
    return ("reverse_kl", 0.5) if alpha == "1.0" else ("js", float(alpha))


def objective_of(alpha: str, **changes: Any) -> SdpoObjective:
    kind, weight = kind_of(alpha)
    weights = {"is_clip": None, "tis_clip": None}
    return SdpoObjective.model_validate(
        {"kind": "sdpo", "divergence": kind, "js_teacher_weight": weight, **weights, **changes}
    )


def losses_of(
    objective: Objective, sampled: Tensor, support: Tensor | None = None, tail: Tensor | None = None, **targets: Tensor
) -> Tensor:
    """`token_losses` [N] of tokens that all carry teacher scores. Engine: as `sampled` unless given."""
    ones = torch.ones_like(sampled).detach()
    fields = {"behaviour": sampled.detach(), "advantage": ones, "has_teacher": ones.bool()} | targets
    return objective.token_losses(Student(sampled, support, tail), TokenTargets(**fields))


def student_and_teacher(case: dict[str, Any], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    z = torch.tensor(case["student_logits"], dtype=dtype, requires_grad=True)
    return z, torch.tensor(case["teacher_logits"], dtype=dtype).log_softmax(-1)


def close(got: Tensor, want: Any, tolerance: float) -> None:
    torch.testing.assert_close(got.detach(), torch.tensor(want, dtype=got.dtype), rtol=0, atol=tolerance)


def averages(start: float, target: float, rate: float, updates: int, dtype: torch.dtype) -> list[float]:
    """The learner's moving average after each of `updates`, of one weight that stays at `target`."""
    master = torch.tensor([start], dtype=dtype)
    ema = WeightEma(SimpleNamespace(masters={"weight": master}), rate)  # type: ignore[arg-type]
    master.fill_(target)
    series = []
    for _ in range(updates):
        ema.update()
        series.append(ema.tensors["weight"].item())
    return series


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("alpha", list(G1["loss"]))
def test_g1_full_vocabulary(alpha: str, dtype: torch.dtype) -> None:
    z, log_q = student_and_teacher(G1, dtype)
    log_p = z.log_softmax(-1).unsqueeze(0)
    close(log_p[0], G1["log_p_student"], TOLERANCE[dtype])
    close(log_q, G1["log_q_teacher"], TOLERANCE[dtype])
    objective = objective_of(alpha, support="full", top_k=0)
    (loss,) = losses_of(objective, log_p[:, 0], log_p, teacher_support=log_q.unsqueeze(0))
    close(loss, G1["loss"][alpha], TOLERANCE[dtype])
    (grad,) = torch.autograd.grad(loss, z)
    close(grad, G1["grad_student_logits"][alpha], GRADIENT_TOLERANCE[dtype])


@pytest.mark.parametrize("alpha", list(G1["loss"]))
def test_g1_closed_form_gradients(alpha: str) -> None:
    z, log_q = student_and_teacher(G1, torch.float64)
    kind, a = kind_of(alpha)
    log_p = z.log_softmax(-1)
    (grad,) = torch.autograd.grad(divergence(log_p, log_q, kind, a), z)
    log_p = log_p.detach()
    p, q = log_p.exp(), log_q.exp()
    log_m = torch.log((1 - a) * p + a * q)
    expected = {
        "forward_kl": p - q,
        "reverse_kl": p * (log_p - log_q - (p * (log_p - log_q)).sum()),
        "js": (1 - a) * p * (log_p - log_m - (p * (log_p - log_m)).sum()),
    }[kind]
    torch.testing.assert_close(grad, expected, rtol=0, atol=1e-12)


def g2_loss(z: Tensor, log_q: Tensor, support: list[int], alpha: str, *, tail: bool) -> Tensor:
    """The token loss of one position over the given support."""
    log_p, log_q = z.log_softmax(-1)[support].unsqueeze(0), log_q[support].unsqueeze(0)
    objective = objective_of(alpha, top_k=len(support), tail=tail)
    teacher = {"teacher_support": log_q, "teacher_tail": tail_log_prob(log_q)}
    return losses_of(objective, log_p[:, 0], log_p, tail_log_prob(log_p), **teacher)[0]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("alpha", list(G2["with_tail"]))
def test_g2_top_k(alpha: str, dtype: torch.dtype) -> None:
    z, log_q = student_and_teacher(G2, dtype)
    support, tolerance = G2["support_from_student"], TOLERANCE[dtype]
    assert z.topk(G2["K"]).indices.tolist() == support
    with_tail = g2_loss(z, log_q, support, alpha, tail=True)
    close(with_tail, G2["with_tail"][alpha], tolerance)
    (grad,) = torch.autograd.grad(with_tail, z)
    close(grad, G2["grad_with_tail"][alpha], GRADIENT_TOLERANCE[dtype])
    close(g2_loss(z, log_q, support, alpha, tail=False), G2["renormalised_no_tail"][alpha], tolerance)
    close(divergence(z.log_softmax(-1), log_q, *kind_of(alpha)), G2["full"][alpha], tolerance)
    wrong = g2_loss(z, log_q, G2["wrong_support_from_teacher"], alpha, tail=True)
    close(wrong, G2["wrong_if_teacher_topk_with_tail"][alpha], tolerance)


def test_g2_tail_masses() -> None:
    z, log_q = student_and_teacher(G2, torch.float64)
    support = G2["support_from_student"]
    close(tail_log_prob(z.log_softmax(-1)[support]).exp(), G2["student_tail_prob"], 1e-9)
    close(tail_log_prob(log_q[support]).exp(), G2["teacher_tail_prob"], 1e-9)


@pytest.mark.parametrize("size", list(G2["by_K_reverse_with_tail"]))
def test_g2_by_support_size(size: str) -> None:
    z, log_q = student_and_teacher(G2, torch.float64)
    support = z.topk(int(size)).indices.tolist()
    close(g2_loss(z, log_q, support, "1.0", tail=True), G2["by_K_reverse_with_tail"][size], 1e-9)


def test_g2_whole_vocabulary_as_support_equals_full() -> None:
    z, log_q = student_and_teacher(G2, torch.float64)
    close(g2_loss(z, log_q, list(range(5)), "1.0", tail=True), G2["K_equals_V_reverse"], 1e-9)
    log_p = z.log_softmax(-1)
    empty = torch.tensor(float("-inf"), dtype=torch.float64)
    complement = divergence(append_tail(log_p, empty), append_tail(log_q, empty), "reverse_kl", 0.5)
    close(complement, G2["full"]["1.0"], 1e-9)


@pytest.mark.parametrize("dtype", DTYPES)
def test_g3_sampled_token_estimates_have_the_reverse_kl_as_mean_gradient(dtype: torch.dtype) -> None:
    z, log_q = student_and_teacher(G3, dtype)
    log_p, tolerance = z.log_softmax(-1), TOLERANCE[dtype]
    losses = losses_of(objective_of("1.0", estimator="sampled_token", top_k=0), log_p, teacher_sampled=log_q)
    mean_gradient = torch.zeros(4, dtype=dtype)
    for case in G3["per_sampled_token"]:
        y = case["y"]
        close(losses[y], case["loss_value"], tolerance)
        close(-losses[y] / log_p[y], case["advantage_log_q_minus_log_p"], tolerance)
        (grad,) = torch.autograd.grad(losses[y], z, retain_graph=True)
        close(grad, case["grad_student_logits"], tolerance)
        mean_gradient += log_p.detach()[y].exp() * grad
    close(mean_gradient, G3["expected_gradient_over_y_from_student"], tolerance)
    (exact,) = torch.autograd.grad(divergence(log_p, log_q, "reverse_kl", 0.5), z)
    torch.testing.assert_close(mean_gradient, exact, rtol=0, atol=1e-12 if dtype == torch.float64 else 1e-6)


def test_g3_one_sgd_step() -> None:
    z, log_q = student_and_teacher(G3, torch.float64)
    step = G3["sgd_step_lr0.5_full_reverse_kl"]
    before = divergence(z.log_softmax(-1), log_q, "reverse_kl", 0.5)
    close(before, step["before"], 1e-9)
    (grad,) = torch.autograd.grad(before, z)
    after = divergence((z - 0.5 * grad).log_softmax(-1), log_q, "reverse_kl", 0.5)
    close(after, step["after"], 1e-9)


@pytest.mark.parametrize("dtype", DTYPES)
def test_g4_importance_weights(dtype: torch.dtype) -> None:
    now, old, engine, losses = (
        torch.tensor(G4[key], dtype=dtype)
        for key in ("log_p_now", "log_p_old_trainer_recomputed", "log_p_rollout_engine", "divergence_per_token")
    )
    tolerance = TOLERANCE[dtype]
    is_weight = truncated_weight(now, old, G4["is_clip"])
    tis_weight = truncated_weight(old, engine, 2.0)
    close(truncated_weight(now, old, 1e9), G4["raw_ratio_now_over_old"], 5 * tolerance)
    close(is_weight, G4["clipped_ratio"], tolerance)
    close(tis_weight, G4["tis_old_over_rollout_capped2"], tolerance)
    everything = torch.ones(4, dtype=torch.bool)
    for weighted, mean in (
        (losses * is_weight, G4["token_mean_is_only"]),
        (losses * is_weight * tis_weight, G4["token_mean_is_and_tis"]),
    ):
        numerator, count = token_mean(weighted, everything)
        close(numerator / count, mean, tolerance)


@pytest.mark.parametrize("dtype", DTYPES)
def test_g4_weights_as_the_objectives_apply_them(dtype: torch.dtype) -> None:
    now, old, engine = (
        torch.tensor(G4[key], dtype=dtype)
        for key in ("log_p_now", "log_p_old_trainer_recomputed", "log_p_rollout_engine")
    )
    p, q = (torch.tensor([row] * 4, dtype=dtype).log() for row in ([0.6, 0.3], [0.2, 0.7]))
    teacher = {"teacher_support": q, "teacher_tail": tail_log_prob(q)}

    def weights(objective: Objective, **targets: Tensor) -> Tensor:
        plain = objective.model_copy(update={"is_clip": None, "tis_clip": None})
        student, known = (now, p, tail_log_prob(p)), teacher | targets | {"behaviour": engine}
        return losses_of(objective, *student, **known) / losses_of(plain, *student, **known)

    both = objective_of("0.5", top_k=2, is_clip=G4["is_clip"], tis_clip=2.0)
    close(weights(both.model_copy(update={"tis_clip": None}), old=old), G4["clipped_ratio"], TOLERANCE[dtype])
    product = torch.tensor(G4["weighted_is_and_tis"]) / torch.tensor(G4["divergence_per_token"])
    close(weights(both, old=old), product.tolist(), 1e-5)
    first_step = truncated_weight(now, engine, 2.0)
    close(weights(both), first_step.tolist(), TOLERANCE[dtype])
    close(weights(GrpoObjective(kind="grpo"), old=old), G4["tis_old_over_rollout_capped2"], TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
def test_g5_masks_and_aggregation(dtype: torch.dtype) -> None:
    losses = torch.tensor(G5["per_token_loss"], dtype=dtype)
    response = torch.tensor(G5["response_mask"], dtype=dtype)
    sample = torch.tensor(G5["self_distillation_mask"], dtype=dtype).unsqueeze(-1)
    numerator, count = token_mean(losses, response * sample)
    close(numerator / count, G5["global_token_mean_PAPER"], TOLERANCE[dtype])
    numerator, count = token_mean(losses, response)
    close(numerator / count, G5["token_mean_if_self_distillation_mask_ignored"], TOLERANCE[dtype])
    numerator, count = token_mean(losses, response * 0)
    assert (numerator.item(), count.item()) == (G5["all_masked_expected"], 0)


@pytest.mark.parametrize("micro_batch", [1, 2, 3, 4])
def test_g5_does_not_depend_on_the_micro_batch(micro_batch: int) -> None:
    losses = torch.tensor(G5["per_token_loss"], dtype=torch.float64)
    sample = torch.tensor(G5["self_distillation_mask"], dtype=torch.float64).unsqueeze(-1)
    mask = torch.tensor(G5["response_mask"], dtype=torch.float64) * sample
    parts = [
        token_mean(part, inside)
        for part, inside in zip(losses.split(micro_batch), mask.split(micro_batch), strict=True)
    ]
    numerator, count = torch.stack([p[0] for p in parts]).sum(), torch.stack([p[1] for p in parts]).sum()
    close(numerator / count, G5["global_token_mean_PAPER"], 1e-9)


def test_g6_moving_average() -> None:
    want, rate = G6["after_1_to_5_updates"], G6["rate"]
    series = averages(G6["teacher0"], G6["student_constant"], rate, len(want), torch.float64)
    assert series == pytest.approx(want, abs=1e-9)
    assert series == pytest.approx([2 - (1 - rate) ** k for k in range(1, 6)], abs=1e-12)
    assert averages(1.0, 2.0, 1.0, 1, torch.float64) == [2.0]
    assert averages(1.0, 2.0, 0.0, 1, torch.float64) == [1.0]


def test_g6_needs_float32() -> None:
    for dtype, key, target, tolerance in (
        (torch.float64, "fp64_rate0.01_from1.0_to1.001_after100", 1.001, 1e-9),
        (torch.float32, "fp32_same", 1.001, 1e-5),
        (torch.float64, "fp64_same_target", 1.0078125, 1e-9),
        (torch.bfloat16, "bf16_delta_form_target_1.0078125_after100_STALLS_AT", 1.0078125, 0.0),
    ):
        assert averages(1.0, target, 0.01, 100, dtype)[-1] == pytest.approx(G6[key], abs=tolerance)


@pytest.mark.parametrize(("every", "key"), [(32, "per_rollout_batch_OFFICIAL"), (1, "per_optimizer_step_TRL_style")])
def test_g6_weight_on_the_initial_model_after_two_batches_of_32_steps(every: int, key: str) -> None:
    """The initial model is 1 and the student 0 ever since."""
    want = G6["two_batches_of_32_optimizer_steps_rate0.01_weight_on_initial"][key]
    assert averages(1.0, 0.0, 0.01, 64 // every, torch.float64)[-1] == pytest.approx(want, abs=1e-9)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rate", list(G7["q"]))
def test_g7_trust_region(rate: str, dtype: torch.dtype) -> None:
    initial, current = (torch.tensor(G7[f"{n}_teacher_logits"], dtype=dtype) for n in ("ref", "current"))
    of_logits = geometric_mixture(initial, current, float(rate))
    of_log_probs = geometric_mixture(initial.log_softmax(-1), current.log_softmax(-1), float(rate))
    close(of_logits.exp(), G7["q"][rate], TOLERANCE[dtype])
    close(of_log_probs.exp(), G7["q"][rate], TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
def test_g7_temperature_and_the_arithmetic_mixture(dtype: torch.dtype) -> None:
    initial, current = (torch.tensor(G7[f"{n}_teacher_logits"], dtype=dtype) for n in ("ref", "current"))
    close(geometric_mixture(initial / 2, current / 2, 0.3).exp(), G7["temperature2_q_0.3"], TOLERANCE[dtype])
    arithmetic = 0.7 * initial.softmax(-1) + 0.3 * current.softmax(-1)
    close(arithmetic, G7["arithmetic_mixture_WRONG_0.3"], TOLERANCE[dtype])
    assert (geometric_mixture(initial, current, 0.3).exp() - arithmetic).abs().max() > 0.03


def test_g8_group_relative_advantages_without_std() -> None:
    assert group_relative_advantages(G8["group_rewards"]).tolist() == G8["grpo_advantage_no_std"]


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("attempt", [0, 1])
def test_g8_mix(attempt: int, dtype: type[np.floating[Any]]) -> None:
    tolerance = 1e-9 if dtype is np.float64 else 1e-5
    distilled = np.array(G8["sdpo_advantages_for_rollouts_0_and_1"][attempt], dtype)
    group_relative = G8["grpo_advantage_no_std"][attempt]
    mixed = mixed_advantages(group_relative, distilled, G8["lambda"])
    assert mixed.tolist() == pytest.approx(G8["mixed"][attempt], abs=tolerance)
    zeros, everywhere = np.zeros(3, dtype), np.ones(3, np.bool_)
    mean = sequence_advantages(distilled, zeros, everywhere, None)
    assert mean.tolist() == pytest.approx([G8["sequence_level_sdpo"][attempt]] * 3, abs=tolerance)
    clipped = sequence_advantages(distilled, zeros, everywhere, 5.0)
    assert clipped.tolist() == pytest.approx([np.mean(G8["clipped_at_5_TTT"][attempt])] * 3, abs=tolerance)


@pytest.mark.parametrize("dtype", DTYPES)
def test_g8_as_the_losses_apply_it(dtype: torch.dtype) -> None:
    """The slope of a token's loss in its log-prob is minus its advantage."""
    for attempt in (0, 1):
        distilled = torch.tensor(G8["sdpo_advantages_for_rollouts_0_and_1"][attempt], dtype=dtype)
        log_p = torch.full((3,), -1.0, dtype=dtype, requires_grad=True)
        group_relative = torch.full((3,), G8["grpo_advantage_no_std"][attempt], dtype=dtype)
        known = {"teacher_sampled": log_p.detach() + distilled, "advantage": group_relative}
        for changes, want in (
            ({"grpo_weight": G8["lambda"]}, G8["mixed"]),
            ({"grpo_weight": 1.0}, [[a] * 3 for a in G8["grpo_advantage_no_std"]]),
            ({"grpo_weight": 0.0}, G8["sdpo_advantages_for_rollouts_0_and_1"]),
            ({"advantage_clip": 5.0}, G8["clipped_at_5_TTT"]),
        ):
            objective = objective_of("1.0", estimator="sampled_token", top_k=0, **changes)
            (slope,) = torch.autograd.grad(losses_of(objective, log_p, **known).sum(), log_p)
            close(-slope, want[attempt], TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
def test_g9_clipped_surrogate(dtype: torch.dtype) -> None:
    old, now, teacher = (
        torch.tensor(G9[key], dtype=dtype).log().unsqueeze(0) for key in ("pi_old", "pi_now", "q_teacher")
    )
    now.requires_grad_()
    known = {"teacher_support": teacher[:, :2], "teacher_tail": teacher[:, 2]}
    known |= {"old_support": old[:, :2], "old_tail": old[:, 2]}

    def loss(clip_low: float, clip_high: float) -> Tensor:
        clips = {"surrogate_clip_low": clip_low, "surrogate_clip_high": clip_high}
        objective = objective_of("1.0", estimator="clipped_surrogate", support="student", top_k=2, **clips)
        return losses_of(objective, now[:, 0], now[:, :2], now[:, 2], **known)[0]

    tolerance = TOLERANCE[dtype]
    close(loss(G9["eps_low"], G9["eps_high"]), G9["loss"], tolerance)
    close(-(old.exp() * torch.tensor(G9["min_terms"], dtype=dtype)).sum(), G9["loss"], tolerance)
    close(loss(1e6, 1e6), G9["loss_unclipped"], tolerance)
    close(loss(1e6, 1e6), G9["KL_now_q"], tolerance)
    (kl_slope,) = torch.autograd.grad(-(now.exp() * (teacher - now).detach()).sum(), now)
    torch.testing.assert_close(torch.autograd.grad(loss(1e6, 1e6), now)[0], kl_slope, rtol=0, atol=tolerance)


@pytest.mark.parametrize("case", CASES["G11_reprompt_routing"], ids=lambda c: c["case"])
def test_g11_routing(case: dict[str, Any]) -> None:
    flags = case["flags"]
    config = HindsightConfig(
        exclude_own_success=flags["exclude_own"],
        include_feedback=flags["include_feedback"],
        feedback_only_without_demo=flags["feedback_only_without_solution"],
    )
    attempts = [
        Attempt(
            sample_index=i,
            text=f"answer {i}",
            reward=float(reward),
            success=reward >= flags["threshold"],
            feedback=feedback,
        )
        for i, (reward, feedback) in enumerate(zip(case["rewards"], case["feedback"], strict=True))
    ]
    got = [
        {"solution_from": r.demo_from, "feedback_used": r.use_feedback, "mask": int(r.mask)}
        for r in route_group(attempts, config)
    ]
    assert got == case["expected"]

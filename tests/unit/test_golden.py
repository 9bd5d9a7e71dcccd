"""The analytic cases of tests/golden/sdpo_cases.json: values to 1e-9 in float64, to 1e-5 in float32.

The file's gradients are central differences that agree with the closed forms to about 1e-8; so they are compared
at that tolerance, and the closed forms, recomputed here, at 1e-12.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sdpo.advantages import group_relative_advantages
from sdpo.config import GrpoObjective, HindsightConfig, SdpoObjective
from sdpo.divergence import Divergence, append_tail, divergence, tail_log_prob
from sdpo.objective import grpo_token_loss, sdpo_token_loss, token_mean, truncated_weight
from sdpo.reprompt import Attempt, route_group

CASES: dict[str, Any] = json.loads((Path(__file__).parents[1] / "golden" / "sdpo_cases.json").read_text())
G1, G2, G3, G4, G5 = (next(v for k, v in CASES.items() if k.startswith(f"G{n}_")) for n in range(1, 6))
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-5}
GRADIENT_TOLERANCE = {torch.float64: 2e-8, torch.float32: 1e-5}
DTYPES = list(TOLERANCE)


def kind_of(alpha: str) -> tuple[Divergence, float]:
    if alpha == "0.0":
        return "forward_kl", 0.5
    return ("reverse_kl", 0.5) if alpha == "1.0" else ("js", float(alpha))


def objective_of(alpha: str, *, top_k: int, tail: bool = True) -> SdpoObjective:
    kind, weight = kind_of(alpha)
    return SdpoObjective(kind="sdpo", divergence=kind, js_teacher_weight=weight, top_k=top_k, tail=tail, is_clip=None)


def student_and_teacher(case: dict[str, Any], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    z = torch.tensor(case["student_logits"], dtype=dtype, requires_grad=True)
    return z, torch.tensor(case["teacher_logits"], dtype=dtype).log_softmax(-1)


def close(got: Tensor, want: Any, tolerance: float) -> None:
    torch.testing.assert_close(got.detach(), torch.tensor(want, dtype=got.dtype), rtol=0, atol=tolerance)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("alpha", list(G1["loss"]))
def test_g1_full_vocabulary(alpha: str, dtype: torch.dtype) -> None:
    z, log_q = student_and_teacher(G1, dtype)
    loss = divergence(z.log_softmax(-1), log_q, *kind_of(alpha))
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
    log_p = z.log_softmax(-1)[support].unsqueeze(0)
    log_q = log_q[support].unsqueeze(0)
    nothing = torch.zeros(1, dtype=z.dtype)
    return sdpo_token_loss(
        log_p,
        tail_log_prob(log_p),
        log_q,
        tail_log_prob(log_q),
        nothing,
        nothing,
        objective_of(alpha, top_k=len(support), tail=tail),
    )[0]


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


def test_g3_sampled_token_estimates_have_the_reverse_kl_as_mean_gradient() -> None:
    z, log_q = student_and_teacher(G3, torch.float64)
    mean_gradient = torch.zeros(4, dtype=torch.float64)
    for case in G3["per_sampled_token"]:
        log_p = z.log_softmax(-1)
        gap = (log_p - log_q).detach()[case["y"]]
        loss = gap * log_p[case["y"]]
        close(loss, case["loss_value"], 1e-9)
        close(-gap, case["advantage_log_q_minus_log_p"], 1e-9)
        (grad,) = torch.autograd.grad(loss, z)
        close(grad, case["grad_student_logits"], 1e-9)
        mean_gradient += log_p.detach()[case["y"]].exp() * grad
    close(mean_gradient, G3["expected_gradient_over_y_from_student"], 1e-9)
    (exact,) = torch.autograd.grad(divergence(z.log_softmax(-1), log_q, "reverse_kl", 0.5), z)
    torch.testing.assert_close(mean_gradient, exact, rtol=0, atol=1e-12)


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


def test_g4_weights_as_the_objectives_apply_them() -> None:
    now, old, engine = (
        torch.tensor(G4[key], dtype=torch.float64)
        for key in ("log_p_now", "log_p_old_trainer_recomputed", "log_p_rollout_engine")
    )
    p = torch.tensor([[0.6, 0.3]] * 4, dtype=torch.float64).log()
    q = torch.tensor([[0.2, 0.7]] * 4, dtype=torch.float64).log()
    bins = (p, tail_log_prob(p), q, tail_log_prob(q))
    plain = sdpo_token_loss(*bins, now, old, SdpoObjective(kind="sdpo", top_k=2, is_clip=None))
    clipped = sdpo_token_loss(*bins, now, old, SdpoObjective(kind="sdpo", top_k=2, is_clip=G4["is_clip"]))
    close(clipped / plain, G4["clipped_ratio"], 1e-9)
    advantage = torch.full((4,), 0.5, dtype=torch.float64)
    grpo = grpo_token_loss(old, old, engine, advantage, GrpoObjective(kind="grpo"))
    close(grpo / -advantage, G4["tis_old_over_rollout_capped2"], 1e-9)


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


def test_g8_group_relative_advantages_without_std() -> None:
    case = CASES["G8_grpo_sdpo_mix"]
    assert group_relative_advantages(case["group_rewards"]).tolist() == case["grpo_advantage_no_std"]


@pytest.mark.parametrize("case", CASES["G11_reprompt_routing"], ids=lambda c: c["case"])
def test_g11_routing(case: dict[str, Any]) -> None:
    flags = case["flags"]
    config = HindsightConfig(
        success_threshold=flags["threshold"],
        exclude_own_success=flags["exclude_own"],
        include_feedback=flags["include_feedback"],
        feedback_only_without_demo=flags["feedback_only_without_solution"],
    )
    attempts = [
        Attempt(sample_index=i, text=f"answer {i}", reward=float(reward), feedback=feedback)
        for i, (reward, feedback) in enumerate(zip(case["rewards"], case["feedback"], strict=True))
    ]
    got = [
        {"solution_from": r.demo_from, "feedback_used": r.use_feedback, "mask": int(r.mask)}
        for r in route_group(attempts, config)
    ]
    assert got == case["expected"]

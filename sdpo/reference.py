"""The self-distillation loss written for reading: one token at a time, in probabilities. The oracle of the tests."""

import torch
from torch import Tensor

from sdpo.config import SdpoObjective


def sdpo_loss_reference(
    student_logits_BTV: Tensor,
    teacher_logits_BTV: Tensor,
    response_ids_BT: Tensor,
    response_mask_BT: Tensor,
    sample_mask_B: Tensor,
    behaviour_log_probs_BT: Tensor,
    objective: SdpoObjective,
    temperature: float,
    support_ids_BTK: Tensor | None = None,
) -> Tensor:
    """Mean loss over the tokens that both masks keep (0 if none), a scalar.

    Logits at position t are those that predict `response_ids[:, t]`. The support is the student's own K most
    likely tokens unless `support_ids_BTK` gives another. The teacher's logits get no gradient.
    """
    total, count = student_logits_BTV.sum() * 0.0, 0
    batch, length, _ = student_logits_BTV.shape
    for b in range(batch):
        for t in range(length):
            if not (sample_mask_B[b] and response_mask_BT[b, t]):
                continue
            p = torch.softmax(student_logits_BTV[b, t] / temperature, -1)
            q = torch.softmax(teacher_logits_BTV[b, t].detach() / temperature, -1)
            support = p.topk(objective.top_k).indices if support_ids_BTK is None else support_ids_BTK[b, t]
            loss = _divergence_of_probs(_bins(p, support, objective.tail), _bins(q, support, objective.tail), objective)
            if objective.is_clip is not None:
                ratio = p[response_ids_BT[b, t]].detach() / behaviour_log_probs_BT[b, t].exp()
                loss = loss * ratio.clamp(max=objective.is_clip)
            total, count = total + loss, count + 1
    return total / max(count, 1)


def _bins(probs_V: Tensor, support_K: Tensor, tail: bool) -> Tensor:
    """Probabilities [K+1] with the mass of the complement last, or [K] renormalised."""
    inside = probs_V[support_K]
    if not tail:
        return inside / inside.sum()
    outside = torch.ones_like(probs_V, dtype=torch.bool).scatter(0, support_K, False)
    return torch.cat([inside, probs_V[outside].sum().unsqueeze(0)])


def _divergence_of_probs(p: Tensor, q: Tensor, objective: SdpoObjective) -> Tensor:
    """Forward KL, reverse KL or the mixture of both against m = (1-a) p + a q."""
    if objective.divergence == "forward_kl":
        return _kl(q, p)
    if objective.divergence == "reverse_kl":
        return _kl(p, q)
    a = objective.js_teacher_weight
    m = (1 - a) * p + a * q
    return (1 - a) * _kl(p, m) + a * _kl(q, m)


def _kl(a: Tensor, b: Tensor) -> Tensor:
    """Sum of a log(a/b) over the bins where a has mass."""
    inside = a > 0
    return (a[inside] * torch.log(a[inside] / b[inside])).sum()

"""Divergences between next-token distributions, over the last dimension of log-probs (paper, section 3).

p is the student and q the teacher. Bins may hold -inf: 0 log 0 counts as 0 and no gradient becomes NaN.
A support of K tokens is made a distribution either by one tail bucket or by renormalising; with the tail the
result is a lower bound of the divergence over the whole vocabulary, whatever the support.
"""

import math
from typing import Literal

import torch
from torch import Tensor

Divergence = Literal["forward_kl", "reverse_kl", "js"]
LARGEST_SUPPORT_LOG_MASS = -1e-7
"""The support's log-mass is capped here before its complement is taken, so that the tail stays finite."""


def _expected_log_ratio(log_a: Tensor, log_b: Tensor) -> Tensor:
    """KL(a||b) over the last dimension; +inf where a has mass and b has none."""
    empty = torch.isneginf(log_a)
    log_a = torch.where(empty, 0.0, log_a)
    log_b = torch.where(empty, 0.0, log_b)
    return (log_a.exp() * (log_a - log_b)).sum(-1)


def forward_kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(q||p): sum of q log(q/p). Log-probs [..., V] -> nats [...]."""
    return _expected_log_ratio(log_q, log_p)


def reverse_kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p||q): sum of p log(p/q). Log-probs [..., V] -> nats [...]."""
    return _expected_log_ratio(log_p, log_q)


def generalised_js(log_p: Tensor, log_q: Tensor, teacher_weight: float) -> Tensor:
    """(1-a) KL(p||m) + a KL(q||m) with m = (1-a) p + a q. Log-probs [..., V] -> nats [...].

    Tends to 0 at both ends of a, so a must lie strictly inside (0, 1): raises `ValueError` otherwise.
    """
    if not 0.0 < teacher_weight < 1.0:
        raise ValueError(f"teacher_weight={teacher_weight}: allowed: strictly between 0 and 1")
    empty = torch.isneginf(log_p) & torch.isneginf(log_q)
    inside_p, inside_q = torch.where(empty, 0.0, log_p), torch.where(empty, 0.0, log_q)
    log_m = torch.logaddexp(inside_p + math.log1p(-teacher_weight), inside_q + math.log(teacher_weight))
    student_side = _expected_log_ratio(log_p, log_m)
    teacher_side = _expected_log_ratio(log_q, log_m)
    return (1.0 - teacher_weight) * student_side + teacher_weight * teacher_side


def divergence(log_p: Tensor, log_q: Tensor, kind: Divergence, js_teacher_weight: float) -> Tensor:
    """The divergence named `kind`; `js_teacher_weight` matters to "js" only. Log-probs [..., V] -> nats [...]."""
    match kind:
        case "forward_kl":
            return forward_kl(log_p, log_q)
        case "reverse_kl":
            return reverse_kl(log_p, log_q)
        case "js":
            return generalised_js(log_p, log_q, js_teacher_weight)


def tail_log_prob(support_log_probs: Tensor) -> Tensor:
    """Log of the mass outside the support, from log-probs [..., K] normalised over the vocabulary -> [...]."""
    log_mass = torch.logsumexp(support_log_probs, -1).clamp(max=LARGEST_SUPPORT_LOG_MASS)
    return torch.log(-torch.expm1(log_mass))


def append_tail(support_log_probs: Tensor, tail_log_probs: Tensor) -> Tensor:
    """Log-probs [..., K] and tail [...] -> [..., K+1] bins that sum to 1."""
    return torch.cat([support_log_probs, tail_log_probs.unsqueeze(-1)], -1)


def renormalise(support_log_probs: Tensor) -> Tensor:
    """Log-probs [..., K] -> log-probs [..., K] that sum to 1 over the support."""
    return support_log_probs - torch.logsumexp(support_log_probs, -1, keepdim=True)

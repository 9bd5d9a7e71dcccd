"""Divergences between next-token distributions, over the last dimension (paper, section 3).

p is the student and q the teacher. Adding a divergence takes a function, its formula and a line of `DIVERGENCES`; the
run file knows it by that name. The run file is read on nodes without torch: this module imports none.

Log-probs may be -inf: 0 log 0 counts as 0 and no gradient becomes NaN.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def _expected_log_ratio(log_a: "Tensor", log_b: "Tensor") -> "Tensor":
    """Return KL(a||b) over the last dimension; +inf where a has mass and b has none."""
    empty = log_a.isneginf()
    log_a = log_a.masked_fill(empty, 0.0)
    log_b = log_b.masked_fill(empty, 0.0)
    return (log_a.exp() * (log_a - log_b)).sum(-1)


def forward_kl(log_p: "Tensor", log_q: "Tensor") -> "Tensor":
    """Return KL(q||p), the sum of q log(q/p): log-probs [..., V] -> nats [...]."""
    return _expected_log_ratio(log_q, log_p)


def reverse_kl(log_p: "Tensor", log_q: "Tensor") -> "Tensor":
    """Return KL(p||q), the sum of p log(p/q): log-probs [..., V] -> nats [...]."""
    return _expected_log_ratio(log_p, log_q)


def generalised_js(log_p: "Tensor", log_q: "Tensor", teacher_weight: float) -> "Tensor":
    """Return (1-a) KL(p||m) + a KL(q||m) with m = (1-a) p + a q: log-probs [..., V] -> nats [...].

    Tends to 0 at both ends of a, so a must lie strictly inside (0, 1): raises `ValueError` otherwise.
    """
    if not 0.0 < teacher_weight < 1.0:
        raise ValueError(f"teacher_weight={teacher_weight}: allowed: strictly between 0 and 1")
    empty = log_p.isneginf() & log_q.isneginf()
    inside_p, inside_q = log_p.masked_fill(empty, 0.0), log_q.masked_fill(empty, 0.0)
    log_m = (inside_p + math.log1p(-teacher_weight)).logaddexp(inside_q + math.log(teacher_weight))
    student_side = _expected_log_ratio(log_p, log_m)
    teacher_side = _expected_log_ratio(log_q, log_m)
    return (1.0 - teacher_weight) * student_side + teacher_weight * teacher_side


def kl(a: "Tensor", b: "Tensor") -> "Tensor":
    """Return the sum of a log(a/b) over the bins where a has mass: probabilities [V] -> nats []."""
    inside = a > 0
    return (a[inside] * (a[inside] / b[inside]).log()).sum()


def js(p: "Tensor", q: "Tensor", a: float) -> "Tensor":
    """Return the generalised Jensen-Shannon divergence: probabilities [V] -> nats []."""
    m = (1 - a) * p + a * q
    return (1 - a) * kl(p, m) + a * kl(q, m)


@dataclass(frozen=True, slots=True)
class Divergence:
    """One divergence, twice: as it is trained, and as it is read."""

    of_log_probs: "Callable[[Tensor, Tensor, float], Tensor]"
    """(log p [..., V], log q [..., V], `js_teacher_weight`) -> nats [...]."""
    formula: "Callable[[Tensor, Tensor, float], Tensor]"
    """The same from probabilities [V], for `sdpo.reference`, with which the tests compare the other."""


DIVERGENCES = {
    "forward_kl": Divergence(lambda log_p, log_q, _: forward_kl(log_p, log_q), lambda p, q, _: kl(q, p)),
    "reverse_kl": Divergence(lambda log_p, log_q, _: reverse_kl(log_p, log_q), lambda p, q, _: kl(p, q)),
    "js": Divergence(generalised_js, js),
}
"""By the name that `objective.divergence` takes."""


def divergence(log_p: "Tensor", log_q: "Tensor", kind: str, js_teacher_weight: float) -> "Tensor":
    """Return the divergence named `kind`; `js_teacher_weight` matters to "js" only. [..., V] -> nats [...]."""
    return DIVERGENCES[kind].of_log_probs(log_p, log_q, js_teacher_weight)

"""What the loss of packed tokens is computed from: the student's log-probs, and everything else. N tokens, K bins."""

from dataclasses import dataclass, fields
from typing import Any, Protocol

from torch import Tensor


class StudentLogProbs(Protocol):
    """The student's log-probs at the run's temperature, normalised over the whole vocabulary. They carry gradients."""

    @property
    def sampled(self) -> Tensor:
        """Return the log-probs of the sampled tokens [N]."""

    @property
    def support(self) -> Tensor | None:
        """Return those at the support ids [N, K] ([N, V] with `support: full`); None where the estimator needs no
        support.
        """

    @property
    def tail(self) -> Tensor | None:
        """Return the log of the mass outside the support [N]; None without support and with `support: full`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenTargets:
    """All that the loss of N tokens needs besides the student. None where the objective needs none of it.

    Log-probs are at the run's temperature and normalised over the whole vocabulary; bins (support and tail) are at
    the student's support ids. Nothing here ever gets a gradient.
    """

    behaviour: Tensor
    """[N] the engine's log-probs of the sampled tokens."""
    advantage: Tensor
    """[N] the group-relative advantage."""
    has_teacher: Tensor
    """bool [N]: the attempt carries teacher scores; where False the teacher's rows hold zeros and are ignored."""
    old: Tensor | None = None
    """[N] log-probs before the batch's first step; None: this is that step, and pi_old is the student itself."""
    teacher_sampled: Tensor | None = None
    """[N] the teacher's log-probs of the sampled tokens."""
    teacher_support: Tensor | None = None
    """[N, K] the teacher's bins."""
    teacher_tail: Tensor | None = None
    """[N]; None with `support: full`."""
    sequence_advantage: Tensor | None = None
    """[N] the attempt's mean of log q - log pi_old (`Objective.sequence_advantage`), on each of its tokens."""
    old_support: Tensor | None = None
    """[N, K] pi_old's bins, for `clipped_surrogate`; None: those of the student itself."""
    old_tail: Tensor | None = None
    """[N]."""
    behaviour_support: Tensor | None = None
    """[N, K] the engine's bins, for `clipped_surrogate` with `support: rollout`."""
    behaviour_tail: Tensor | None = None
    """[N]."""
    reference: Tensor | None = None
    """[N] the initial model's log-probs of the sampled tokens, for `reference_kl`."""

    def part(self, rows: slice) -> "TokenTargets":
        """Return the targets of tokens `rows`, as views."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        parts: dict[str, Any] = {name: None if value is None else value[rows] for name, value in values.items()}
        return TokenTargets(**parts)


def log_old(student: StudentLogProbs, targets: TokenTargets) -> Tensor:
    """Return log pi_old of the sampled tokens [N]; on the batch's first step that is the student itself."""
    return student.sampled if targets.old is None else targets.old


def required(value: Tensor | None, name: str) -> Tensor:
    """Return `value`. Raises `ValueError` if it is None although the objective needs it."""
    if value is None:
        raise ValueError(f"{name}=None: the objective needs it; allowed: a tensor")
    return value

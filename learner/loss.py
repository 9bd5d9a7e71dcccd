"""The loss of one micro-batch, chunk by chunk, and what must be measured while a chunk's bins exist.

N active tokens of the micro-batch, C of them in one chunk, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from learner.experiences import asked_support, required
from learner.scoring import TokenLogProbs
from learner.targets import ActiveRows, token_targets
from sdpo.config import ObjectiveConfig, SdpoObjective
from sdpo.divergence import reverse_kl
from sdpo.estimators import bins
from sdpo.objective import TokenTargets, token_losses
from sdpo.types import Experience


class WholeRows:
    """The teacher's whole distributions of N tokens, left on the host: only the rows of a chunk go to the device."""

    def __init__(self, experiences: Sequence[Experience], active: Sequence[NDArray[np.bool_]]) -> None:
        self._places = [
            (
                None
                if e.scores is None
                else required(e.scores.support_log_probs, "scores.support_log_probs", e.rollout),
                t,
            )
            for e, keep in zip(experiences, active, strict=True)
            for t in np.flatnonzero(keep).tolist()
        ]

    def part(self, rows: slice, vocab_size: int, device: torch.device) -> torch.Tensor:
        """float32 [C, V]; zeros for the tokens of attempts without scores."""
        empty = np.zeros(vocab_size, np.float32)
        found = [empty if array is None else array[t] for array, t in self._places[rows]]
        return torch.from_numpy(np.stack(found)).to(device)


class MicroBatchLoss:
    """The `learner.scoring.TokenLoss` of one micro-batch.

    `targets` hold N tokens. After the forward `teacher_kl` [N] is the divergence of the student from the teacher, in
    nats, unweighted: KL(p||q) over the support's bins whatever the objective's own divergence, or where it has no
    bins the single-sample estimate log p - log q. `teacher_entropy` is [N]. Both are zero for tokens without teacher.
    """

    def __init__(
        self,
        experiences: Sequence[Experience],
        active: Sequence[NDArray[np.bool_]],
        objective: ObjectiveConfig,
        device: torch.device,
    ) -> None:
        """`active[i]` is bool [T]: the tokens of experience i that are scored. Raises `InfrastructureError` if an
        experience lacks what the objective needs."""
        self.objective = objective
        self.targets = token_targets(experiences, active, objective, device)
        self.teacher_kl = torch.zeros_like(self.targets.behaviour)
        self.teacher_entropy = torch.zeros_like(self.targets.behaviour)
        self._whole: WholeRows | None = None
        if isinstance(objective, SdpoObjective):
            self.teacher_entropy = ActiveRows(experiences, active, device).scored(lambda _, s: s.entropy)
            if asked_support(objective) == "full":
                self._whole = WholeRows(experiences, active)

    def __call__(self, student: TokenLogProbs, rows: slice) -> torch.Tensor:
        """Losses [C] of the tokens `rows`."""
        targets = self.targets.part(rows)
        if self._whole is not None:
            assert student.support is not None
            vocab_size = student.support.shape[1]
            targets = replace(targets, teacher_support=self._whole.part(rows, vocab_size, student.support.device))
        if targets.teacher_sampled is not None:
            self.teacher_kl[rows] = self._divergence(student, targets)
        return token_losses(student, targets, self.objective)

    @torch.no_grad()
    def _divergence(self, student: TokenLogProbs, targets: TokenTargets) -> torch.Tensor:
        if targets.teacher_support is None:
            assert targets.teacher_sampled is not None
            divergence = student.sampled - targets.teacher_sampled
        else:
            assert student.support is not None
            assert isinstance(self.objective, SdpoObjective)
            log_p = bins(student.support, student.tail, self.objective)
            divergence = reverse_kl(log_p, bins(targets.teacher_support, targets.teacher_tail, self.objective))
        return torch.where(targets.has_teacher, divergence, 0.0)

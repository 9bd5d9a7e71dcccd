"""The loss of one micro-batch, chunk by chunk, and what must be measured while a chunk's bins exist.

N active tokens of the micro-batch, C of them in one chunk, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from learner.scoring import TokenLogProbs
from learner.targets import ActiveRows, token_targets
from sdpo.bins import bins
from sdpo.divergence import reverse_kl
from sdpo.objectives.base import Objective
from sdpo.token_targets import TokenTargets
from sdpo.types import Experience


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
        objective: Objective,
        device: torch.device,
    ) -> None:
        """Gather the targets. `active[i]` is bool [T]: the tokens of experience i that are scored. Raises
        `InfrastructureError` if an experience lacks what the objective needs.
        """
        self.objective = objective
        rows = ActiveRows(experiences, active, device)
        self.targets = token_targets(rows, objective)
        self.teacher_kl = torch.zeros_like(self.targets.behaviour)
        self.teacher_entropy = torch.zeros_like(self.targets.behaviour)
        if objective.needs.teacher:
            self.teacher_entropy = rows.scored(lambda _, scores: scores.entropy)
        self._whole = rows.whole() if objective.needs.support == "full" else None

    def __call__(self, student: TokenLogProbs, rows: slice) -> torch.Tensor:
        """Return the losses [C] of the tokens `rows`."""
        targets = self.targets.part(rows)
        if self._whole is not None:
            assert student.support is not None
            empty = np.zeros(student.support.shape[1], np.float32)
            whole_CV = np.stack([empty if row is None else row for row in self._whole[rows]])
            targets = replace(targets, teacher_support=torch.from_numpy(whole_CV).to(student.support.device))
        if targets.teacher_sampled is not None:
            self.teacher_kl[rows] = self._divergence(student, targets)
        return self.objective.token_losses(student, targets)

    @torch.no_grad()
    def _divergence(self, student: TokenLogProbs, targets: TokenTargets) -> torch.Tensor:
        if targets.teacher_support is None:
            assert targets.teacher_sampled is not None
            divergence = student.sampled - targets.teacher_sampled
        else:
            assert student.support is not None
            log_p = bins(student.support, student.tail, self.objective.needs)
            divergence = reverse_kl(log_p, bins(targets.teacher_support, targets.teacher_tail, self.objective.needs))
        return torch.where(targets.has_teacher, divergence, 0.0)

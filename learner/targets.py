"""From the experiences of one micro-batch to `TokenTargets`: what its loss needs besides the student.

T response tokens, N active tokens of the micro-batch, K support size.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from learner.batch import behaviour_log_probs_of
from learner.experiences import required
from sdpo.bins import tail_log_prob
from sdpo.errors import InfrastructureError
from sdpo.objectives.base import Needs, Objective
from sdpo.token_targets import TokenTargets
from sdpo.types import Experience, Float32, PolicyScores, Rollout, TeacherScores


class ActiveRows:
    """Joins the active rows of arrays [T, ...] of every attempt: `active[i]` is bool [T] of `experiences[i]`."""

    def __init__(
        self, experiences: Sequence[Experience], active: Sequence[NDArray[np.bool_]], device: torch.device
    ) -> None:
        self.experiences, self._device = experiences, device
        self._pairs = list(zip(experiences, active, strict=True))

    def every(self, pick: Callable[[Experience], NDArray[Any]]) -> torch.Tensor:
        """Return [N, ...]: an array that every attempt has."""
        return self._joined([pick(experience)[keep] for experience, keep in self._pairs])

    def scored(self, pick: Callable[[Experience, TeacherScores], NDArray[Any]], *width: int) -> torch.Tensor:
        """Return [N, *width]: the teacher's array, zeros for the tokens of attempts that no teacher scored."""
        return self._joined(
            [
                np.zeros((int(keep.sum()), *width), np.float32) if e.scores is None else pick(e, e.scores)[keep]
                for e, keep in self._pairs
            ]
        )

    def whole(self) -> list[NDArray[np.float32] | None]:
        """Return the teacher's whole distribution [V] at each of N tokens, left on the host; None without scores."""
        return [
            None if e.scores is None else required(e.scores.support_log_probs, "scores.support_log_probs", e.rollout)[t]
            for e, keep in self._pairs
            for t in np.flatnonzero(keep).tolist()
        ]

    def _joined(self, parts: list[NDArray[Any]]) -> torch.Tensor:
        return torch.from_numpy(np.concatenate(parts)).to(self._device)


def token_targets(rows: ActiveRows, objective: Objective) -> TokenTargets:
    """Return the targets of the active tokens, in the order of the batch.

    With `support: full` the teacher's distributions are not among them, see `learner.loss`. Raises
    `InfrastructureError` if an experience lacks what the objective needs.
    """
    needs = objective.needs
    fields: dict[str, torch.Tensor | None] = {
        "behaviour": rows.every(lambda e: behaviour_log_probs_of(e.rollout)),
        "advantage": rows.every(lambda e: np.full(len(e.rollout.response_ids), e.advantage, np.float32)),
        "has_teacher": rows.every(
            lambda e: np.full(len(e.rollout.response_ids), needs.teacher and e.scores is not None)
        ),
    }
    if _all_or_none("policy", rows.experiences):
        fields["old"] = rows.every(lambda e: _policy(e).sampled_log_probs)
    if needs.reference:
        fields["reference"] = rows.every(_reference)
    if needs.teacher:
        fields |= _teacher(rows, objective)
    if needs.old_bins:
        fields |= _old_bins(rows, needs, has_policy="old" in fields)
    return TokenTargets(**fields)  # type: ignore[arg-type]


def _teacher(rows: ActiveRows, objective: Objective) -> dict[str, torch.Tensor | None]:
    needs = objective.needs
    fields: dict[str, torch.Tensor | None] = {"teacher_sampled": rows.scored(lambda _, s: s.sampled_log_probs)}
    if needs.support not in (None, "full"):
        fields["teacher_support"] = rows.scored(
            lambda e, s: required(s.support_log_probs, "scores.support_log_probs", e.rollout), needs.support_size
        )
        fields["teacher_tail"] = rows.scored(
            lambda e, s: required(s.tail_log_probs, "scores.tail_log_probs", e.rollout)
        )
    if needs.sequence_advantage:
        fields["sequence_advantage"] = rows.scored(
            lambda e, s: objective.sequence_advantage(
                s.sampled_log_probs, _policy(e).sampled_log_probs, e.rollout.model_mask
            )
        )
    return fields


def _old_bins(rows: ActiveRows, needs: Needs, has_policy: bool) -> dict[str, torch.Tensor | None]:
    """Return the other policies' bins (eq. 13)."""
    fields: dict[str, torch.Tensor | None] = {}
    if has_policy:
        fields["old_support"] = rows.every(
            lambda e: required(_policy(e).support_log_probs, "policy.support_log_probs", e.rollout)
        )
        fields["old_tail"] = rows.every(
            lambda e: required(_policy(e).tail_log_probs, "policy.tail_log_probs", e.rollout)
        )
    if needs.support == "rollout":
        support_NK = rows.every(lambda e: _behaviour_support(e.rollout))
        fields |= {"behaviour_support": support_NK, "behaviour_tail": tail_log_prob(support_NK)}
    return fields


def _all_or_none(part: str, experiences: Sequence[Experience]) -> bool:
    """Return whether the experiences carry `part`. Raises `InfrastructureError` if some do and some do not."""
    present = [getattr(e, part) is not None for e in experiences]
    if any(present) and not all(present):
        rollout = experiences[present.index(False)].rollout
        name = f"{rollout.task_id}#{rollout.sample_index}"
        raise InfrastructureError(f"rollout {name} came without {part}, others came with it")
    return all(present)


def _policy(experience: Experience) -> PolicyScores:
    return required(experience.policy, "policy", experience.rollout)


def _reference(experience: Experience) -> Float32:
    return required(experience.reference, "reference", experience.rollout).sampled_log_probs


def _behaviour_support(rollout: Rollout) -> Float32:
    """Return float32 [T, K]: the engine's log-probs of its K most likely tokens; zeros where the environment wrote."""
    written = [
        required(s.support_log_probs, "support_log_probs of the engine", rollout)
        for s in rollout.segments
        if s.author == "model"
    ]
    size, parts = written[0].shape[1], iter(written)
    return np.concatenate(
        [
            next(parts) if s.author == "model" else np.zeros((len(s.token_ids), size), np.float32)
            for s in rollout.segments
        ]
    )

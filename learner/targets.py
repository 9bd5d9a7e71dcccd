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
from sdpo.advantages import sequence_advantages
from sdpo.config import ObjectiveConfig, SdpoObjective
from sdpo.divergence import tail_log_prob
from sdpo.errors import InfrastructureError
from sdpo.objective import TokenTargets
from sdpo.types import Experience, Float32, PolicyScores, Rollout, TeacherScores


class ActiveRows:
    """Joins the active rows of arrays [T, ...] of every attempt: `active[i]` is bool [T] of `experiences[i]`."""

    def __init__(
        self, experiences: Sequence[Experience], active: Sequence[NDArray[np.bool_]], device: torch.device
    ) -> None:
        self._pairs, self._device = list(zip(experiences, active, strict=True)), device

    def every(self, pick: Callable[[Experience], NDArray[Any]]) -> torch.Tensor:
        """[N, ...]: an array that every attempt has."""
        return self._joined([pick(experience)[keep] for experience, keep in self._pairs])

    def scored(self, pick: Callable[[Experience, TeacherScores], NDArray[Any]], *width: int) -> torch.Tensor:
        """[N, *width]: an array of the teacher's, with zeros for the tokens of attempts that no teacher scored."""
        return self._joined(
            [
                np.zeros((int(keep.sum()), *width), np.float32) if e.scores is None else pick(e, e.scores)[keep]
                for e, keep in self._pairs
            ]
        )

    def _joined(self, parts: list[NDArray[Any]]) -> torch.Tensor:
        return torch.from_numpy(np.concatenate(parts)).to(self._device)


def token_targets(
    experiences: Sequence[Experience],
    active: Sequence[NDArray[np.bool_]],
    objective: ObjectiveConfig,
    device: torch.device,
) -> TokenTargets:
    """The targets of the tokens `active` (bool [T] for each experience), in the order of the batch.

    With `support: full` the teacher's distributions are not among them, see `learner.loss`. Raises
    `InfrastructureError` if an experience lacks what the objective needs.
    """
    rows = ActiveRows(experiences, active, device)
    sdpo = objective if isinstance(objective, SdpoObjective) else None
    fields: dict[str, torch.Tensor | None] = {
        "behaviour": rows.every(lambda e: behaviour_log_probs_of(e.rollout)),
        "advantage": rows.every(lambda e: np.full(_length(e), e.advantage, np.float32)),
        "has_teacher": rows.every(lambda e: np.full(_length(e), sdpo is not None and e.scores is not None)),
    }
    if _all_or_none("policy", experiences):
        fields["old"] = rows.every(lambda e: _policy(e).sampled_log_probs)
    if objective.reference_kl > 0:
        fields["reference"] = rows.every(_reference)
    if sdpo is not None:
        fields |= _teacher(rows, sdpo)
        if sdpo.estimator == "clipped_surrogate":
            fields |= _surrogate(rows, sdpo, has_policy="old" in fields)
    return TokenTargets(**fields)  # type: ignore[arg-type]


def _teacher(rows: ActiveRows, objective: SdpoObjective) -> dict[str, torch.Tensor | None]:
    fields: dict[str, torch.Tensor | None] = {"teacher_sampled": rows.scored(lambda _, s: s.sampled_log_probs)}
    if objective.needs_support and objective.support != "full":
        fields["teacher_support"] = rows.scored(
            lambda e, s: required(s.support_log_probs, "scores.support_log_probs", e.rollout), objective.top_k
        )
        fields["teacher_tail"] = rows.scored(
            lambda e, s: required(s.tail_log_probs, "scores.tail_log_probs", e.rollout)
        )
    if objective.estimator == "sequence":
        fields["sequence_advantage"] = rows.scored(
            lambda e, s: sequence_advantages(
                s.sampled_log_probs, _policy(e).sampled_log_probs, e.rollout.model_mask, objective.advantage_clip
            )
        )
    return fields


def _surrogate(rows: ActiveRows, objective: SdpoObjective, has_policy: bool) -> dict[str, torch.Tensor | None]:
    """The other policies' bins (eq. 13)."""
    fields: dict[str, torch.Tensor | None] = {}
    if has_policy:
        fields["old_support"] = rows.every(
            lambda e: required(_policy(e).support_log_probs, "policy.support_log_probs", e.rollout)
        )
        fields["old_tail"] = rows.every(
            lambda e: required(_policy(e).tail_log_probs, "policy.tail_log_probs", e.rollout)
        )
    if objective.support == "rollout":
        support_NK = rows.every(lambda e: _behaviour_support(e.rollout))
        fields |= {"behaviour_support": support_NK, "behaviour_tail": tail_log_prob(support_NK)}
    return fields


def _all_or_none(part: str, experiences: Sequence[Experience]) -> bool:
    """Whether the experiences carry `part`. Raises `InfrastructureError` if some do and some do not."""
    absent = [e for e in experiences if getattr(e, part) is None]
    if 0 < len(absent) < len(experiences):
        raise InfrastructureError(f"rollout {_name(absent[0].rollout)} came without {part}, others came with it")
    return not absent


def _policy(experience: Experience) -> PolicyScores:
    if experience.policy is None:
        raise InfrastructureError(f"rollout {_name(experience.rollout)} came without policy")
    return experience.policy


def _reference(experience: Experience) -> Float32:
    if experience.reference is None:
        raise InfrastructureError(f"rollout {_name(experience.rollout)} came without reference")
    return experience.reference.sampled_log_probs


def _behaviour_support(rollout: Rollout) -> Float32:
    """float32 [T, K]: the engine's log-probs of its K most likely tokens; zeros where the environment wrote."""
    written = [
        required(s.support_log_probs, "support_log_probs of the engine", rollout)
        for s in rollout.segments
        if s.author == "model"
    ]
    size = written[0].shape[1]
    parts = iter(written)
    return np.concatenate(
        [
            next(parts) if s.author == "model" else np.zeros((len(s.token_ids), size), np.float32)
            for s in rollout.segments
        ]
    )


def _length(experience: Experience) -> int:
    return len(experience.rollout.response_ids)


def _name(rollout: Rollout) -> str:
    return f"{rollout.task_id}#{rollout.sample_index}"

"""What a rank was sent, joined by id; which of its tokens are trained; where the student is asked for log-probs.

T response tokens, K support size.
"""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from learner.batch import ScoringItem, support_ids_of
from learner.messages import Attachment, TrainRequest
from sdpo.errors import InfrastructureError
from sdpo.objectives.base import Objective
from sdpo.types import Experience, Int32, PolicyScores, ReferenceScores, Rollout, TeacherScores

T = TypeVar("T")
Attached = TeacherScores | PolicyScores | ReferenceScores
ATTACHMENTS: dict[Attachment, type[Attached]] = {
    "scores": TeacherScores,
    "policy": PolicyScores,
    "reference": ReferenceScores,
}


def join(request: TrainRequest, objects: Sequence[Any]) -> list[Experience]:
    """Return one experience for each attempt of `request`, see `learner.messages.TrainRequest` for the order of
    `objects`.

    Raises `InfrastructureError` if an object is missing, of another kind, of another attempt or of another length.
    """
    count, num_attached = len(request.advantages), sum(len(names) for names in request.attached)
    if len(request.attached) != count or len(objects) != count + num_attached:
        raise InfrastructureError(
            f"step {request.batch_index + 1}: {len(objects)} objects for {count} rollouts and "
            f"{num_attached} attachments"
        )
    stream = iter(objects)
    experiences = []
    for advantage, names in zip(request.advantages, request.attached, strict=True):
        rollout = next(stream)
        if not isinstance(rollout, Rollout):
            raise InfrastructureError(
                f"step {request.batch_index + 1}: a {type(rollout).__name__} came instead of a rollout"
            )
        attached: dict[str, Any] = {name: _checked(next(stream), name, rollout) for name in names}
        experiences.append(Experience(rollout=rollout, advantage=advantage, **attached))
    return experiences


def _checked(attachment: Attached, name: Attachment, rollout: Rollout) -> Attached:
    """Return `attachment` if it is of the kind `name`, of this attempt, and has a row for each of its tokens."""
    attempt = f"{rollout.task_id}#{rollout.sample_index}"
    if not isinstance(attachment, ATTACHMENTS[name]):
        raise InfrastructureError(f"a {type(attachment).__name__} came as {name} of rollout {attempt}")
    if (attachment.task_id, attachment.sample_index) != (rollout.task_id, rollout.sample_index):
        other = f"{attachment.task_id}#{attachment.sample_index}"
        raise InfrastructureError(f"{name} of {other} came with rollout {attempt}")
    num_tokens = len(rollout.response_ids)
    for field in fields(attachment):
        value = getattr(attachment, field.name)
        if isinstance(value, np.ndarray) and len(value) != num_tokens:
            raise InfrastructureError(f"{name}.{field.name} of {attempt} has {len(value)} rows for {num_tokens} tokens")
    return attachment


def active_tokens(experience: Experience, objective: Objective) -> NDArray[np.bool_]:
    """Return the tokens that count in the loss, bool [T].

    The model wrote them, and a teacher scored the attempt or the objective trains attempts without scores, too.
    """
    mask = experience.rollout.model_mask
    return mask if objective.needs.unscored or experience.scores is not None else np.zeros_like(mask)


def asked_support(objective: Objective) -> Literal["given", "full"] | None:
    """Return what the student is asked for besides the sampled tokens, see `learner.scoring.ScoreRequest`."""
    match objective.needs.support:
        case None:
            return None
        case "full":
            return "full"
        case "rollout" | "student" | "teacher":
            return "given"


def scoring_item(experience: Experience, keep: NDArray[np.bool_], objective: Objective) -> ScoringItem:
    """Return the attempt under its own prompt, scored at `keep` (bool [T]) over the objective's support."""
    return ScoringItem(
        context_ids=experience.rollout.prompt_ids,
        response_ids=experience.rollout.response_ids,
        keep=keep,
        support_ids=_support_ids(experience, objective),
    )


def _support_ids(experience: Experience, objective: Objective) -> Int32 | None:
    """Return int32 [T, K], or None where no given support is asked for (sampled tokens only, or the whole vocabulary).

    An attempt that no teacher scored has no support of the teacher's: its rows are 0..K-1 and count for nothing.
    """
    rollout, scores, policy = experience.rollout, experience.scores, experience.policy
    size = objective.needs.support_size
    match objective.needs.support:
        case None | "full":
            return None
        case "rollout":
            support_ids = support_ids_of(rollout)
        case "student":
            support_ids = required(policy.support_ids if policy else None, "policy.support_ids", rollout)
        case "teacher" if scores is None:
            return np.tile(np.arange(size, dtype=np.int32), (len(rollout.response_ids), 1))
        case "teacher":
            assert scores is not None
            support_ids = required(scores.support_ids, "scores.support_ids", rollout)
    if support_ids.shape[1] != size:
        raise InfrastructureError(
            f"rollout {rollout.task_id}#{rollout.sample_index}: support of {support_ids.shape[1]} tokens, "
            f"objective.top_k={size}"
        )
    return support_ids


def required(part: T | None, name: str, rollout: Rollout) -> T:
    """Return `part`. Raises `InfrastructureError` if it is None: the objective needs it."""
    if part is None:
        raise InfrastructureError(f"rollout {rollout.task_id}#{rollout.sample_index} came without {name}")
    return part

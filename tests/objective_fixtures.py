"""Random batches of full logits, the packed path through `token_losses` on them, and random objectives."""

import dataclasses
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from hypothesis import strategies as st
from torch import Tensor

from sdpo.advantages import sequence_advantages
from sdpo.config import GrpoObjective, SdpoObjective
from sdpo.objective import TokenTargets, token_losses, token_mean
from sdpo.reference import FullBatch
from sdpo.teacher_math import geometric_mixture

B, T, V, K = 3, 4, 7, 3
Objective = SdpoObjective | GrpoObjective
DIVERGENCES: list[dict[str, object]] = [
    {"divergence": "forward_kl"},
    {"divergence": "reverse_kl"},
    {"divergence": "js"},
    {"divergence": "js", "js_teacher_weight": 0.2},
]
SUPPORTS: list[dict[str, object]] = [
    {"support": "rollout"},
    {"support": "student"},
    {"support": "teacher", "tail": False},
    {"support": "full", "top_k": 0},
]
SAMPLED: dict[str, object] = {"divergence": "reverse_kl", "top_k": 0, "estimator": "sampled_token"}
SEQUENCE = {**SAMPLED, "estimator": "sequence"}
SURROGATE: dict[str, object] = {"divergence": "reverse_kl", "estimator": "clipped_surrogate"}
ESTIMATORS: list[dict[str, object]] = [
    *({**divergence, **support} for divergence in DIVERGENCES for support in SUPPORTS),
    {"divergence": "reverse_kl", "advantage_clip": 0.7},
    {"divergence": "reverse_kl", "advantage_clip": 0.7, "support": "full", "top_k": 0},
    SAMPLED,
    {**SAMPLED, "advantage_clip": 0.7},
    SEQUENCE,
    {**SEQUENCE, "advantage_clip": 0.7},
    SURROGATE,
    {**SURROGATE, "support": "student", "advantage_clip": 0.7},
]


def sdpo(**changes: object) -> SdpoObjective:
    return SdpoObjective.model_validate({"kind": "sdpo", "top_k": K, **changes})


def grpo(**changes: object) -> GrpoObjective:
    return GrpoObjective.model_validate({"kind": "grpo", **changes})


class Student(NamedTuple):
    sampled: Tensor
    support: Tensor | None
    tail: Tensor | None


class Packed(NamedTuple):
    """The tokens of a batch one after the other, those outside the response mask left out."""

    student: Student
    targets: TokenTargets
    counted: Tensor

    def losses(self, objective: Objective) -> Tensor:
        return token_losses(self.student, self.targets, objective)


def make_batch(
    seed: int = 0,
    *,
    several_steps: bool = False,
    dtype: torch.dtype = torch.float64,
    shape: tuple[int, int, int] = (B, T, V),
) -> FullBatch:
    """Policies that drifted a little apart, and a teacher of its own; lengths differ, the last has no teacher."""
    generator = torch.Generator().manual_seed(seed)
    attempts, length, vocabulary = shape

    def noise(scale: float, *sizes: int) -> Tensor:
        return scale * torch.randn(sizes, generator=generator, dtype=torch.float64).to(dtype)

    student = noise(2, *shape)
    old, rollout = student + noise(0.5, *shape), student + noise(0.5, *shape)
    ids = torch.randint(vocabulary, (attempts, length), generator=generator)
    return FullBatch(
        student_logits=student.requires_grad_(),
        teacher_logits=noise(2, *shape),
        response_ids=ids,
        response_mask=torch.arange(length) < length - torch.arange(attempts).unsqueeze(-1),
        has_teacher=torch.arange(attempts) < attempts - 1,
        rollout_log_probs=of_sampled(rollout, ids),
        advantages=torch.tensor([0.75, -0.25, -0.5], dtype=dtype)[:attempts],
        support_ids=rollout.topk(K).indices,
        rollout_logits=rollout,
        reference_log_probs=of_sampled(student.detach() + noise(0.5, *shape), ids),
        old_log_probs=of_sampled(old, ids) if several_steps else None,
        old_logits=old if several_steps else None,
    )


def of_sampled(logits: Tensor, ids: Tensor, temperature: float = 1.0) -> Tensor:
    return (logits / temperature).log_softmax(-1).gather(-1, ids.unsqueeze(-1)).squeeze(-1).detach()


def support_of(batch: FullBatch, objective: Objective) -> Tensor:
    """Ids [B, T, K] of the support, chosen as the run's roles choose it."""
    assert isinstance(objective, SdpoObjective)
    match objective.support:
        case "rollout":
            assert batch.support_ids is not None
            return batch.support_ids
        case "student":
            return (
                (batch.student_logits if batch.old_logits is None else batch.old_logits).topk(objective.top_k).indices
            )
        case "teacher":
            return _teacher(batch, 1.0).topk(objective.top_k).indices
        case "full":
            return torch.arange(batch.student_logits.shape[-1]).expand(batch.student_logits.shape)


def pack(batch: FullBatch, objective: Objective, temperature: float = 1.0) -> Packed:
    """The batch as the learner hands it to `token_losses`: gathered log-probs, zeros where no teacher scored."""
    keep = batch.response_mask
    needs_support = isinstance(objective, SdpoObjective) and objective.needs_support
    support = support_of(batch, objective) if needs_support else None
    log_p = (batch.student_logits / temperature).log_softmax(-1)
    sampled = log_p.gather(-1, batch.response_ids.unsqueeze(-1)).squeeze(-1)
    fields: dict[str, Tensor | None] = {
        "behaviour": batch.rollout_log_probs[keep],
        "advantage": batch.advantages.unsqueeze(-1).expand(keep.shape)[keep],
        "has_teacher": batch.has_teacher.unsqueeze(-1).expand(keep.shape)[keep],
        "old": None if batch.old_log_probs is None else batch.old_log_probs[keep],
        "reference": None if batch.reference_log_probs is None else batch.reference_log_probs[keep],
    }
    if isinstance(objective, SdpoObjective):
        fields |= _teacher_fields(batch, objective, temperature, sampled.detach(), support)
    student = Student(sampled[keep], *_gathered(log_p, support, keep))
    counted = fields["has_teacher"]
    assert counted is not None
    if isinstance(objective, GrpoObjective) or objective.grpo_weight > 0:
        counted = torch.ones_like(counted)
    return Packed(student, TokenTargets(**fields), counted)  # type: ignore[arg-type]


def packed_loss(batch: FullBatch, objective: Objective, temperature: float = 1.0) -> Tensor:
    packed = pack(batch, objective, temperature)
    numerator, count = token_mean(packed.losses(objective), packed.counted)
    return numerator / count.clamp(min=1)


def with_logits(batch: FullBatch, logits: Tensor) -> FullBatch:
    return dataclasses.replace(batch, student_logits=logits)


def _teacher(batch: FullBatch, temperature: float) -> Tensor:
    logits = batch.teacher_logits / temperature
    if batch.initial_teacher_logits is None:
        return logits.log_softmax(-1)
    return geometric_mixture(batch.initial_teacher_logits / temperature, logits, batch.trust_region_rate)


def _teacher_fields(
    batch: FullBatch, objective: SdpoObjective, temperature: float, sampled: Tensor, support: Tensor | None
) -> dict[str, Tensor | None]:
    keep, log_q = batch.response_mask, _teacher(batch, temperature)
    teacher_sampled = log_q.gather(-1, batch.response_ids.unsqueeze(-1)).squeeze(-1)
    old_sampled = sampled if batch.old_log_probs is None else batch.old_log_probs
    scored = batch.has_teacher.unsqueeze(-1).expand(keep.shape)[keep]
    fields: dict[str, Tensor | None] = {"teacher_sampled": teacher_sampled[keep]}
    fields["teacher_support"], fields["teacher_tail"] = _gathered(log_q, support, keep)
    if objective.estimator == "sequence":
        rows = [
            sequence_advantages(q.detach().numpy(), old.detach().numpy(), mask.numpy(), objective.advantage_clip)
            for q, old, mask in zip(teacher_sampled, old_sampled, keep, strict=True)
        ]
        fields["sequence_advantage"] = torch.stack([torch.from_numpy(row) for row in rows])[keep]
    for name, value in fields.items():
        if value is not None:
            fields[name] = value * scored.view(-1, *[1] * (value.dim() - 1))
    if objective.estimator == "clipped_surrogate":
        if batch.old_logits is not None:
            log_old = (batch.old_logits / temperature).log_softmax(-1)
            fields["old_support"], fields["old_tail"] = _gathered(log_old, support, keep)
        if batch.rollout_logits is not None:
            log_rollout = (batch.rollout_logits / temperature).log_softmax(-1)
            fields["behaviour_support"], fields["behaviour_tail"] = _gathered(log_rollout, support, keep)
    return fields


def _gathered(log_probs: Tensor, support: Tensor | None, keep: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """Bins [N, K] and tail [N]; the tail is None where the support is the whole vocabulary."""
    if support is None:
        return None, None
    inside = log_probs.gather(-1, support)[keep]
    if support.shape[-1] == log_probs.shape[-1]:
        return inside, None
    outside = torch.ones_like(log_probs, dtype=torch.bool).scatter(-1, support, False)
    return inside, torch.logsumexp(log_probs.masked_fill(~outside, -math.inf), -1)[keep]


@contextmanager
def stopped_gradients_held(record: list[Tensor]) -> Iterator[None]:
    """Inside, the n-th call of `detach` answers with the n-th tensor of `record`, which the first use fills.

    What stop-gradient holds constant is thereby constant for finite differences too.
    """
    replay, plain = iter(list(record)), Tensor.detach
    filling = not record

    def held(tensor: Tensor) -> Tensor:
        if not filling:
            return next(replay)
        record.append(plain(tensor).clone())
        return record[-1]

    with patch.object(Tensor, "detach", held):
        yield


def gradients_check(loss: Callable[[Tensor], Tensor], logits: Tensor) -> bool:
    """`torch.autograd.gradcheck` of a loss with stop-gradients inside."""
    record: list[Tensor] = []

    def held_loss(z: Tensor) -> Tensor:
        with stopped_gradients_held(record):
            return loss(z)

    held_loss(logits)
    return bool(torch.autograd.gradcheck(held_loss, logits.clone().requires_grad_(), fast_mode=True))


def objectives() -> st.SearchStrategy[Objective]:
    """Any objective that the config allows."""
    caps, anchor = st.sampled_from([None, 0.8, 1.3, 2.0]), st.sampled_from([0.0, 0.0, 0.1])
    clips = st.fixed_dictionaries(
        {
            "clip_low": st.floats(0.05, 0.5),
            "clip_high": st.floats(0.05, 0.5),
            "dual_clip": st.floats(1.05, 3),
        }
    )
    baseline = st.builds(lambda c, tis, kl: grpo(**c, tis_clip=tis, reference_kl=kl), clips, caps, anchor)

    def distilled(estimator: dict[str, object], grpo_clips: dict[str, float], extra: dict[str, Any]) -> Objective:
        return sdpo(**estimator, grpo=grpo_clips, **extra)

    extra = st.fixed_dictionaries(
        {
            "is_clip": caps,
            "tis_clip": caps,
            "grpo_weight": st.sampled_from([0.0, 0.0, 0.1, 0.9, 1.0]),
            "reference_kl": anchor,
            "surrogate_clip_low": st.floats(0.05, 0.5),
            "surrogate_clip_high": st.floats(0.05, 0.5),
        }
    )
    return st.one_of(baseline, st.builds(distilled, st.sampled_from(ESTIMATORS), clips, extra))

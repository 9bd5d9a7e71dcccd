"""Attempts with everything that a run knows about them, computed the plain way: full logits of four models in float64.

T response tokens, V vocabulary, K support size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from sdpo.config import GrpoObjective, SdpoObjective
from sdpo.reference import FullBatch
from sdpo.types import (
    Experience,
    FinishReason,
    Int32,
    PolicyScores,
    ReferenceScores,
    Rollout,
    Segment,
    TeacherScores,
)
from tests.learner_fixtures import VERSION

K = 5
TEMPERATURE = 0.7
SHAPES = ((4, 6), (3, 3, 4, 2), (7, 1), (5, 8), (2, 5))
"""Prompt, then segments that alternate model, environment, model."""
UNSCORED = 3
"""The attempt that no teacher scored."""


def plain_model(folder: Path, noise: float = 0.0, seed: int = 0) -> PreTrainedModel:
    """The model in float64, its weights moved by relative noise."""
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight += noise * weight.std() * torch.randn(weight.shape, generator=generator, dtype=torch.float64)
    return model


def logits_of(model: PreTrainedModel, context_ids: Int32, response_ids: Int32) -> Tensor:
    """float64 [T, V]: row t predicts token t of the response."""
    ids = torch.from_numpy(np.concatenate([context_ids, response_ids]).astype(np.int64))
    logits: Tensor = model(input_ids=ids[None], use_cache=False).logits[0]
    return logits[len(context_ids) - 1 : -1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """Tokens of one attempt, its hindsight prompt, and logits [T, V] of everybody but the student."""

    prompt_ids: Int32
    hindsight_ids: Int32
    lengths: tuple[int, ...]
    response_ids: Int32
    teacher: Tensor
    engine: Tensor
    old: Tensor
    reference: Tensor
    advantage: float
    has_teacher: bool

    @property
    def model_mask(self) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        return np.concatenate([np.full(length, turn % 2 == 0) for turn, length in enumerate(self.lengths)])


def make_attempts(folder: Path, seed: int = 0) -> list[Attempt]:
    """Engine and old policy are the student with a little noise, the teacher with more."""
    rng = np.random.default_rng(seed)
    others = {name: plain_model(folder, scale, i + 1) for i, (name, scale) in enumerate(NOISE.items())}
    vocab = others["teacher"].config.vocab_size
    attempts = []
    for index, (num_prompt, *lengths) in enumerate(SHAPES):
        prompt_ids, hindsight_ids, response_ids = (
            rng.integers(0, vocab, length, dtype=np.int32) for length in (num_prompt, num_prompt + 6, sum(lengths))
        )
        contexts = {name: hindsight_ids if name == "teacher" else prompt_ids for name in others}
        with torch.no_grad():
            found = {name: logits_of(model, contexts[name], response_ids) for name, model in others.items()}
        attempts.append(
            Attempt(
                prompt_ids=prompt_ids,
                hindsight_ids=hindsight_ids,
                lengths=tuple(lengths),
                response_ids=response_ids,
                advantage=(0.75, -0.25, 0.0, -0.5, 1.5)[index],
                has_teacher=index != UNSCORED,
                **found,
            )
        )
    return attempts


NOISE = {"teacher": 0.3, "engine": 0.03, "old": 0.03, "reference": 0.1}


def full_batch(
    attempts: Sequence[Attempt], student: PreTrainedModel, objective: SdpoObjective | GrpoObjective, several_steps: bool
) -> FullBatch:
    """What the oracle reads; the student's logits carry gradients to its weights."""
    anchored = objective.reference_kl > 0
    return FullBatch(
        student_logits=_padded([logits_of(student, a.prompt_ids, a.response_ids) for a in attempts]),
        teacher_logits=_padded([a.teacher for a in attempts]),
        response_ids=_padded([torch.from_numpy(a.response_ids.astype(np.int64)) for a in attempts]),
        response_mask=_padded([torch.from_numpy(a.model_mask) for a in attempts]),
        has_teacher=torch.tensor([a.has_teacher for a in attempts]),
        rollout_log_probs=_padded([sampled(a.engine, a.response_ids) for a in attempts]),
        advantages=torch.tensor([a.advantage for a in attempts], dtype=torch.float64),
        old_log_probs=_padded([sampled(a.old, a.response_ids) for a in attempts]) if several_steps else None,
        old_logits=_padded([a.old for a in attempts]) if several_steps else None,
        support_ids=_padded([a.engine.topk(K).indices for a in attempts]),
        rollout_logits=_padded([a.engine for a in attempts]),
        reference_log_probs=_padded([sampled(a.reference, a.response_ids) for a in attempts]) if anchored else None,
    )


def rollout_of(attempt: Attempt, index: int) -> Rollout:
    """As the engine would record it, support included."""
    log_probs, support_ids = sampled(attempt.engine, attempt.response_ids), attempt.engine.topk(K).indices
    support = log_probs_of(attempt.engine).gather(1, support_ids)
    segments, start = [], 0
    for turn, length in enumerate(attempt.lengths):
        place = slice(start, start + length)
        start += length
        token_ids = attempt.response_ids[place]
        if turn % 2:
            segments.append(Segment(author="environment", token_ids=token_ids))
            continue
        segments.append(
            Segment(
                author="model",
                token_ids=token_ids,
                log_probs=log_probs[place].float().numpy(),
                support_ids=support_ids[place].int().numpy(),
                support_log_probs=support[place].float().numpy(),
            )
        )
    return Rollout(
        task_id=f"task-{index}",
        sample_index=index,
        prompt_ids=attempt.prompt_ids,
        segments=tuple(segments),
        finish_reason=FinishReason.STOP,
    )


def experience_of(
    attempt: Attempt, index: int, objective: SdpoObjective | GrpoObjective, old: Tensor | None
) -> Experience:
    """The attempt as teachers and learner would score it. `old` are the logits [T, V] of pi_old, if it is recalled."""
    rollout = rollout_of(attempt, index)
    sdpo = objective if isinstance(objective, SdpoObjective) else None
    recalled = None if old is None else policy_of(rollout, old, objective)
    reference = ReferenceScores(
        task_id=rollout.task_id,
        sample_index=index,
        sampled_log_probs=sampled(attempt.reference, attempt.response_ids).float().numpy(),
    )
    return Experience(
        rollout=rollout,
        advantage=attempt.advantage,
        scores=_scores_of(attempt, rollout, sdpo, recalled) if sdpo is not None and attempt.has_teacher else None,
        policy=recalled,
        reference=reference if objective.reference_kl > 0 else None,
    )


def policy_of(rollout: Rollout, logits: Tensor, objective: SdpoObjective | GrpoObjective) -> PolicyScores:
    sdpo = objective if isinstance(objective, SdpoObjective) and objective.needs_support else None
    chooses = sdpo is not None and sdpo.support == "student"
    needs_bins = sdpo is not None and sdpo.estimator == "clipped_surrogate"
    ids = logits.topk(K).indices if chooses else _engine_support(rollout)
    support, tail = _bins(logits, ids)
    return PolicyScores(
        task_id=rollout.task_id,
        sample_index=rollout.sample_index,
        sampled_log_probs=sampled(logits, rollout.response_ids).float().numpy(),
        support_ids=ids.int().numpy() if chooses else None,
        support_log_probs=support if needs_bins else None,
        tail_log_probs=tail if needs_bins else None,
    )


def _scores_of(
    attempt: Attempt, rollout: Rollout, objective: SdpoObjective | None, recalled: PolicyScores | None
) -> TeacherScores:
    assert objective is not None
    support = tail = chosen = None
    if objective.needs_support and objective.support == "full":
        support = log_probs_of(attempt.teacher).float().numpy()
    elif objective.needs_support:
        ids = _engine_support(rollout)
        if objective.support == "teacher":
            ids = attempt.teacher.topk(K).indices
            chosen = ids.int().numpy()
        elif objective.support == "student":
            assert recalled is not None
            assert recalled.support_ids is not None
            ids = torch.from_numpy(recalled.support_ids).long()
        support, tail = _bins(attempt.teacher, ids)
    log_q = log_probs_of(attempt.teacher)
    return TeacherScores(
        task_id=rollout.task_id,
        sample_index=rollout.sample_index,
        sampled_log_probs=sampled(attempt.teacher, attempt.response_ids).float().numpy(),
        entropy=-(log_q.exp() * log_q).sum(-1).float().numpy(),
        support_ids=chosen,
        support_log_probs=support,
        tail_log_probs=tail,
        version=VERSION,
    )


def log_probs_of(logits: Tensor) -> Tensor:
    return (logits.detach() / TEMPERATURE).log_softmax(-1)


def sampled(logits: Tensor, ids: Int32) -> Tensor:
    """float64 [T]: log-probs of `ids` at the temperature, without gradient."""
    return log_probs_of(logits).gather(1, torch.from_numpy(ids.astype(np.int64))[:, None])[:, 0]


def _engine_support(rollout: Rollout) -> Tensor:
    parts = [
        np.tile(np.arange(K), (len(s.token_ids), 1)) if s.support_ids is None else s.support_ids
        for s in rollout.segments
    ]
    return torch.from_numpy(np.concatenate(parts)).long()


def _bins(
    logits: Tensor, ids: Tensor
) -> tuple[np.ndarray[tuple[int, int], np.dtype[np.float32]], np.ndarray[tuple[int], np.dtype[np.float32]]]:
    probs = log_probs_of(logits).exp()
    inside = torch.zeros_like(probs, dtype=torch.bool).scatter(1, ids, True)
    tail = probs.masked_fill(inside, 0.0).sum(-1).log()
    return probs.gather(1, ids).log().float().numpy(), tail.float().numpy()


def _padded(rows: Sequence[Tensor]) -> Tensor:
    return torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True)

"""Attempts of several turns: student and teacher see what the environment wrote, at its place; it is never trained."""

import dataclasses
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from learner.batch import ScoringBatch, make_batch
from learner.experiences import active_tokens, scoring_item
from learner.loss import MicroBatchLoss
from learner.model import load_causal_lm
from learner.scoring import Scored, ScoreRequest, ScoringModel
from learner.teacher import TeacherWorker
from sdpo.config import GrpoObjective, ObjectiveConfig, SdpoObjective
from sdpo.types import Experience, FinishReason, Int32, Rollout, Segment
from tests.fixtures.learner import (
    VERSION,
    hindsight_of,
    make_config,
    random_rollout,
    random_rollouts,
    random_scores,
    scores_only,
)
from tests.fixtures.tiny_models import make_tiny_model

CPU = torch.device("cpu")
PROMPT, FIRST, ENVIRONMENT, SECOND = SHAPE = (6, 5, 4, 7)
BEFORE, AFTER = slice(0, FIRST), slice(FIRST + ENVIRONMENT, FIRST + ENVIRONMENT + SECOND)
HINDSIGHT = np.arange(40, 67, dtype=np.int32)
OBJECTIVES: dict[str, ObjectiveConfig] = {
    "sdpo": SdpoObjective(kind="sdpo", top_k=5),
    "grpo": GrpoObjective(kind="grpo"),
}
TEMPERATURE = 0.7


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"), dtype=torch.float32)


def two_turns(seed: int = 0) -> Rollout:
    return random_rollout(np.random.default_rng(seed), 50, 300, SHAPE, 5)


def with_other_environment(rollout: Rollout) -> Rollout:
    """The same attempt, but every token that the environment wrote is another."""
    first, environment, second = rollout.segments
    other = dataclasses.replace(environment, token_ids=environment.token_ids + 1)
    return dataclasses.replace(rollout, segments=(first, other, second))


@lru_cache
def plain_model(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


@torch.no_grad()
def plain_log_probs(folder: Path, context_ids: Int32, rollout: Rollout) -> Tensor:
    """[T]: one row, no packing; the logits at a token predict the next one."""
    ids = torch.from_numpy(np.concatenate([context_ids, rollout.response_ids]).astype(np.int64))
    log_probs = (plain_model(folder)(ids[None]).logits[0] / TEMPERATURE).log_softmax(-1)
    return torch.stack([log_probs[i - 1, ids[i]] for i in range(len(context_ids), len(ids))])


def experience_of(rollout: Rollout) -> Experience:
    return Experience(rollout=rollout, advantage=0.5, scores=random_scores(rollout))


def packed(experiences: Sequence[Experience], kind: str = "sdpo") -> ScoringBatch:
    objective = OBJECTIVES[kind]
    return make_batch([scoring_item(e, active_tokens(e, objective), objective) for e in experiences], CPU)


def student_log_probs(folder: Path, rollout: Rollout) -> Tensor:
    """[model tokens] of `rollout`, packed between other attempts."""
    experiences = [experience_of(r) for r in [*random_rollouts(2), rollout, *random_rollouts(1, seed=1)]]
    batch = packed(experiences)
    with torch.no_grad():
        model = ScoringModel(load_causal_lm(str(folder), torch.float32), 4)
        scored = model(ScoreRequest(batch=batch, temperature=TEMPERATURE, support="given"))
    parts: tuple[Tensor, ...] = scored.log_probs.sampled.split(list(batch.counts))
    return parts[2]


def teacher_log_probs(folder: Path, rollout: Rollout) -> Tensor:
    """[T] of `rollout` under the hindsight prompt, packed with other attempts."""
    worker = TeacherWorker(make_config(folder), 0)
    worker.start(VERSION)
    company = random_rollouts(2)
    hindsights = [hindsight_of(company[0]), hindsight_of(rollout, HINDSIGHT), hindsight_of(company[1])]
    answer = worker.score(VERSION, TEMPERATURE, hindsights, company[0], rollout, company[1])
    return torch.from_numpy(scores_only(answer)[1].sampled_log_probs)  # type: ignore[arg-type]


def close(got: Tensor, want: Tensor) -> None:
    torch.testing.assert_close(got, want, rtol=1e-5, atol=2e-5)


def test_student_reads_the_environment_between_its_turns(folder: Path) -> None:
    rollout = two_turns()
    want, got = plain_log_probs(folder, rollout.prompt_ids, rollout), student_log_probs(folder, rollout)
    assert got.shape == (FIRST + SECOND,)
    close(got[:FIRST], want[BEFORE])
    close(got[FIRST:], want[AFTER])
    changed = with_other_environment(rollout)
    moved = student_log_probs(folder, changed)
    close(moved[:FIRST], got[:FIRST])
    assert ((moved[FIRST:] - got[FIRST:]).abs() > 1e-3).all()
    close(moved[FIRST:], plain_log_probs(folder, rollout.prompt_ids, changed)[AFTER])


def test_teacher_reads_the_environment_after_the_hindsight_prompt(folder: Path) -> None:
    rollout = two_turns()
    got = teacher_log_probs(folder, rollout)
    close(got, plain_log_probs(folder, HINDSIGHT, rollout))
    changed = with_other_environment(rollout)
    moved = teacher_log_probs(folder, changed)
    close(moved, plain_log_probs(folder, HINDSIGHT, changed))
    close(moved[BEFORE], got[BEFORE])
    assert ((moved[AFTER] - got[AFTER]).abs() > 1e-3).all()


def counting_rollout(start: int, sizes: Sequence[int]) -> Rollout:
    """Tokens start, start + 1, ... over prompt and segments: a token's id tells its place."""
    bounds = start + np.cumsum([0, *sizes])
    prompt_ids, *turns = (np.arange(a, b, dtype=np.int32) for a, b in pairwise(bounds))
    segments = [
        Segment(author="environment", token_ids=ids)
        if turn % 2
        else Segment(author="model", token_ids=ids, log_probs=np.zeros(len(ids), np.float32))
        for turn, ids in enumerate(turns)
    ]
    return Rollout(
        task_id=f"from-{start}",
        sample_index=0,
        prompt_ids=prompt_ids,
        segments=tuple(segments),
        finish_reason=FinishReason.STOP,
    )


def test_every_scored_token_is_predicted_by_the_state_before_it() -> None:
    rollouts = [counting_rollout(100, (3, 2, 2, 3)), counting_rollout(200, (1, 1, 3, 1, 1, 2))]
    batch = packed([Experience(rollout=r, advantage=1.0, scores=None) for r in rollouts], "grpo")
    assert batch.lengths == (10, 9)
    assert batch.cu_seqlens.tolist() == [0, 10, 19]
    assert batch.input_ids.tolist() == [[*range(100, 110), *range(200, 209)]]
    assert batch.position_ids.tolist() == [[*range(10), *range(9)]]
    assert batch.sampled_ids.tolist() == [103, 104, 107, 108, 109, 201, 205, 207, 208]
    # A turn's first token is predicted by the last token of the environment: 106, 204 and 206.
    assert batch.input_ids[0, batch.positions].tolist() == [102, 103, 106, 107, 108, 200, 204, 206, 207]
    assert batch.counts == (5, 4)


class Observed:
    """The loss of one micro-batch as the learner takes it, and the gradient at every state and embedding."""

    def __init__(self, folder: Path, experiences: Sequence[Experience], kind: str) -> None:
        objective = OBJECTIVES[kind]
        hf_model = load_causal_lm(str(folder), torch.float32)
        kept: dict[str, Tensor] = {}

        def keep(name: str) -> Any:
            def hook(module: Any, inputs: Any, output: Tensor) -> None:
                output.retain_grad()
                kept[name] = output

            return hook

        hf_model.base_model.norm.register_forward_hook(keep("states"))
        hf_model.get_input_embeddings().register_forward_hook(keep("embeddings"))
        loss = MicroBatchLoss(experiences, [active_tokens(e, objective) for e in experiences], objective, CPU)
        support: Any = "given" if kind == "sdpo" else None
        request = ScoreRequest(batch=packed(experiences, kind), temperature=TEMPERATURE, support=support, loss=loss)
        scored: Scored = ScoringModel(hf_model, 4)(request)
        assert scored.total is not None
        assert scored.losses is not None
        scored.total.backward()  # type: ignore[no-untyped-call]
        self.losses = scored.losses
        self.states, self.embeddings = (gradient_of(kept[name])[0].norm(dim=-1) for name in ("states", "embeddings"))
        self.weights = torch.cat([gradient_of(p).flatten() for p in hf_model.parameters()])


def gradient_of(tensor: Tensor) -> Tensor:
    assert tensor.grad is not None
    return tensor.grad


@pytest.mark.parametrize("kind", OBJECTIVES)
def test_environment_tokens_get_no_gradient_at_the_head_but_are_seen(folder: Path, kind: str) -> None:
    company, rollout = random_rollout(np.random.default_rng(9), 1, 300, (4, 3), 5), two_turns()
    seen = Observed(folder, [experience_of(company), experience_of(rollout)], kind)
    offset = len(company.prompt_ids) + len(company.response_ids)
    predicted = [3, 4, 5] + [offset + PROMPT - 1 + t for t in np.flatnonzero(rollout.model_mask).tolist()]
    assert len(seen.losses) == len(predicted) == 3 + FIRST + SECOND
    assert torch.nonzero(seen.states)[:, 0].tolist() == predicted
    start = offset + PROMPT + FIRST
    assert (seen.embeddings[start : start + ENVIRONMENT] > 0).all()


@pytest.mark.parametrize("kind", OBJECTIVES)
def test_what_is_recorded_at_environment_tokens_changes_nothing(folder: Path, kind: str) -> None:
    plain = experience_of(two_turns())
    assert plain.scores is not None
    scores, written = plain.scores, ~plain.rollout.model_mask
    arrays = ("support_log_probs", "tail_log_probs", "sampled_log_probs", "entropy")
    other = dataclasses.replace(scores, **{name: getattr(scores, name).copy() for name in arrays})
    for name in arrays:
        getattr(other, name)[written] -= 7
    want = Observed(folder, [plain], kind)
    got = Observed(folder, [dataclasses.replace(plain, scores=other)], kind)
    assert torch.equal(got.losses, want.losses)
    assert torch.equal(got.weights, want.weights)
    assert want.weights.abs().max() > 0

"""Runs, attempts and teacher scores for the learner's tests: random tokens, no engine."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from learner.experiences import ATTACHMENTS
from learner.messages import LearnerInfo, ScoreReceipt, TrainRequest
from learner.packing import plan_mini_batches
from learner.rank import LearnerRank
from sdpo.config import RunConfig
from sdpo.types import Experience, FinishReason, HindsightPrompt, Rollout, Segment, TeacherScores, Version
from tests.backend_fixtures import watch_gradients

VERSION = Version(incarnation=0, batch=0)


def make_config(model: Path | str, dtype: str = "float32", **sections: Any) -> RunConfig:
    """A run on `model`; `sections` are merged over the defaults, as in a run file."""
    learner = {"num_threads": 1, "optimizer": {"learning_rate": 1e-3}} | sections.pop("learner", {})
    teacher = {"num_threads": 1} | sections.pop("teacher", {})
    objective = sections.pop("objective", {"kind": "sdpo", "top_k": 5})
    return RunConfig.model_validate(
        {"model": {"path": str(model), "dtype": dtype}, "learner": learner, "teacher": teacher, "objective": objective}
        | sections
    )


def random_rollout(rng: np.random.Generator, index: int, vocab: int, lengths: Sequence[int], support: int) -> Rollout:
    """lengths: prompt, then segments that alternate model, environment, model, ..."""
    segments = []
    for turn, length in enumerate(lengths[1:]):
        ids = rng.integers(0, vocab, length, dtype=np.int32)
        if turn % 2:
            segments.append(Segment(author="environment", token_ids=ids))
            continue
        supports = np.stack([rng.permutation(vocab)[:support] for _ in range(length)]).astype(np.int32)
        log_probs = -rng.random((length, support)).astype(np.float32) - 1
        segments.append(
            Segment(
                author="model",
                token_ids=ids,
                log_probs=-3 * rng.random(length, dtype=np.float32),
                support_ids=supports if support else None,
                support_log_probs=log_probs if support else None,
            )
        )
    return Rollout(
        task_id=f"task-{index}",
        sample_index=index,
        prompt_ids=rng.integers(0, vocab, lengths[0], dtype=np.int32),
        segments=tuple(segments),
        finish_reason=FinishReason.STOP,
    )


def random_rollouts(count: int, vocab: int = 300, support: int = 5, seed: int = 0) -> list[Rollout]:
    """Prompts of 3-12 tokens and responses of 1-14; every third attempt has two turns."""
    rng = np.random.default_rng(seed)
    shapes = []
    for i in range(count):
        turns = [int(n) for n in rng.integers(1, 15, 3 if i % 3 == 0 else 1)]
        shapes.append([int(rng.integers(3, 13)), *turns])
    return [random_rollout(rng, i, vocab, shape, support) for i, shape in enumerate(shapes)]


def random_scores(rollout: Rollout, support: int = 5, seed: int = 0) -> TeacherScores:
    """A proper distribution over support and tail at every position."""
    rng = np.random.default_rng(seed + rollout.sample_index)
    bins = np.log(rng.dirichlet(np.ones(support + 1), len(rollout.response_ids))).astype(np.float32)
    return TeacherScores(
        task_id=rollout.task_id,
        sample_index=rollout.sample_index,
        support_log_probs=bins[:, :support],
        tail_log_probs=bins[:, support],
        sampled_log_probs=-3 * rng.random(len(rollout.response_ids), dtype=np.float32),
        entropy=rng.random(len(rollout.response_ids), dtype=np.float32),
        support_ids=None,
        version=VERSION,
    )


def hindsight_of(rollout: Rollout, token_ids: np.ndarray[Any, Any] | None = None) -> HindsightPrompt:
    """A hindsight prompt; by default the attempt's own prompt, so that teacher and student see the same."""
    return HindsightPrompt(
        task_id=rollout.task_id,
        sample_index=rollout.sample_index,
        token_ids=rollout.prompt_ids if token_ids is None else token_ids,
        mask=True,
        demo_from=None,
        used_feedback=True,
        num_demo_chars_cut=0,
        num_feedback_chars_cut=0,
        num_attempt_chars_cut=0,
        template_version="1",
    )


def random_experiences(count: int, scored: Sequence[bool] | None = None, seed: int = 0) -> list[Experience]:
    """Random rollouts, and random scores where `scored` (by default all); the advantage of attempt i is i % 3 - 1."""
    rollouts = random_rollouts(count, seed=seed)
    flags = [True] * count if scored is None else scored
    return [
        Experience(rollout=r, advantage=float(i % 3 - 1), scores=random_scores(r, seed=seed) if flag else None)
        for i, (r, flag) in enumerate(zip(rollouts, flags, strict=True))
    ]


def train_calls(
    experiences: Sequence[Experience],
    ranks: int = 1,
    tokens: int = 8192,
    mini_batches: Sequence[Sequence[int]] | None = None,
) -> list[list[Any]]:
    """The arguments of `LearnerRank.train` for each rank, as the orchestrator plans them: every rank gets its own
    attempts only. `mini_batches` of indices; by default one of all attempts.
    """
    lengths = [e.num_tokens for e in experiences]
    whole = [range(len(experiences))] if mini_batches is None else mini_batches
    calls: list[list[Any]] = []
    for plan in plan_mini_batches(whole, lengths, ranks, tokens, 1):
        mine = sorted(i for mini_batch in plan for part in mini_batch for i in part)
        attached = [tuple(n for n in ATTACHMENTS if getattr(experiences[i], n) is not None) for i in mine]
        request = TrainRequest(
            step=0,
            advantages=tuple(experiences[i].advantage for i in mine),
            attached=tuple(attached),
            mini_batches=tuple(tuple(tuple(mine.index(i) for i in part) for part in parts) for parts in plan),
        )
        calls.append([request])
        for i, names in zip(mine, attached, strict=True):
            calls[-1] += [experiences[i].rollout, *(getattr(experiences[i], name) for name in names)]
    return calls


@contextmanager
def one_rank(config: RunConfig, checkpoint_dir: str | None = None) -> Iterator["ObservedRank"]:
    """A learner of one rank in this process."""
    learner = ObservedRank(config, 0, 1)
    try:
        learner.setup("127.0.0.1", learner.address()[1], checkpoint_dir)
        yield learner
    finally:
        learner.close()


def masters(learner: LearnerRank) -> dict[str, torch.Tensor]:
    """Copies of the whole float32 weights."""
    return {name: tensor.clone() for name, tensor in learner._backend.full_tensors(torch.float32)}


class ObservedRank(LearnerRank):
    """A rank that keeps the gradients which `Backend.update` saw."""

    def setup(self, *arguments: Any) -> LearnerInfo:
        info = super().setup(*arguments)
        self._gradients = watch_gradients(self._backend)
        return info

    def gradients(self) -> np.ndarray[Any, Any]:
        """float32 [steps, trained parameters] of all steps so far: summed over ranks and micro-batches, not clipped."""
        return torch.stack([torch.cat([g.flatten() for g in step.values()]) for step in self._gradients]).numpy()


def scores_only(answer: Sequence[ScoreReceipt | TeacherScores]) -> list[TeacherScores]:
    """A teacher's answer without its receipt."""
    return [part for part in answer if isinstance(part, TeacherScores)]

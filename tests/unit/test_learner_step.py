"""The training step on one rank: exact token mean, masks, skipped steps, direction of learning."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from learner.teacher import TeacherWorker
from sdpo.errors import InfrastructureError
from sdpo.types import FinishReason, Rollout, Segment, TeacherScores
from tests.learner_fixtures import (
    VERSION,
    ObservedRank,
    hindsight_of,
    make_config,
    masters,
    one_rank,
    random_rollouts,
    random_scores,
    requests,
    scores_only,
)
from tests.tiny_models import make_tiny_model

GRPO = {"kind": "grpo"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"))


def gradients(learner: ObservedRank) -> torch.Tensor:
    return torch.from_numpy(learner.gradients())


def scored(
    rollouts: Sequence[Rollout], keep: Callable[[int], bool] = lambda i: True
) -> tuple[list[bool], list[TeacherScores]]:
    flags = [keep(i) for i in range(len(rollouts))]
    return flags, [random_scores(r) for r, flag in zip(rollouts, flags, strict=True) if flag]


@pytest.mark.parametrize("objective", [{"kind": "sdpo", "top_k": 5}, GRPO])
def test_micro_batches_change_nothing(folder: Path, objective: dict[str, object]) -> None:
    rollouts = random_rollouts(10)
    flags, scores = scored(rollouts, lambda i: i % 4 != 1) if objective is not GRPO else ([False] * 10, [])
    results = []
    for tokens in (30, 90, 8192):
        with one_rank(make_config(folder, objective=objective)) as learner:
            request = requests(rollouts, flags, tokens=tokens)[0]
            metrics = learner.train(request, *rollouts, *scores)
            results.append((len(request.micro_batches), metrics, gradients(learner)))
    assert results[0][0] > results[1][0] > results[2][0] == 1
    for _, metrics, gradient in results[:2]:
        assert metrics["loss"] == pytest.approx(results[2][1]["loss"], rel=1e-5)
        assert metrics["active_tokens"] == results[2][1]["active_tokens"]
        assert (gradient - results[2][2]).norm() <= 1e-5 * results[2][2].norm()


def test_loss_counts_only_scored_attempts_and_model_tokens(folder: Path) -> None:
    rollouts = random_rollouts(6)
    flags, scores = scored(rollouts, lambda i: i in (0, 2))
    with one_rank(make_config(folder)) as learner:
        metrics = learner.train(requests(rollouts, flags)[0], *rollouts, *scores)
        whole = gradients(learner)
    assert metrics["active_tokens"] == rollouts[0].model_mask.sum() + rollouts[2].model_mask.sum()
    assert len(rollouts[0].segments) == 3
    with one_rank(make_config(folder)) as learner:
        part = [rollouts[0], rollouts[2]]
        alone = learner.train(requests(part, [True, True])[0], *part, *scores)
        assert (gradients(learner) - whole).norm() <= 1e-5 * whole.norm()
    assert metrics["loss"] == pytest.approx(alone["loss"], rel=1e-5)


def test_identical_contexts_give_no_loss_and_no_gradient(folder: Path) -> None:
    config = make_config(folder)
    rollouts = random_rollouts(8)
    teacher = TeacherWorker(config, 0)
    teacher.start(VERSION)
    scores = scores_only(teacher.score(VERSION, 1.0, [hindsight_of(r) for r in rollouts], *rollouts))
    with one_rank(config) as learner:
        metrics = learner.train(requests(rollouts, [True] * 8)[0], *rollouts, *scores)
    assert abs(metrics["loss"]) <= 1e-6
    assert metrics["grad_norm"] <= 1e-5
    assert abs(metrics["teacher_gap"]) <= 1e-5


def test_a_step_raises_what_the_teacher_prefers(folder: Path) -> None:
    config = make_config(folder, objective={"kind": "sdpo", "top_k": 5, "divergence": "reverse_kl"})
    (rollout,) = random_rollouts(1)
    length = len(rollout.response_ids)
    liked = random_scores(rollout)
    bins = np.full((length, 5), np.log(0.025), np.float32)
    bins[:, 0] = np.log(0.85)
    scores = TeacherScores(
        task_id=liked.task_id,
        sample_index=liked.sample_index,
        support_log_probs=bins,
        tail_log_probs=np.full(length, np.log(0.05), np.float32),
        sampled_log_probs=liked.sampled_log_probs,
        version=VERSION,
    )
    with one_rank(config) as learner:
        request = requests([rollout], [True])[0]
        losses = [learner.train(request, rollout, scores)["loss"] for _ in range(8)]
    assert losses[-1] < 0.8 * losses[0]


def test_grpo_raises_log_probs_of_rewarded_attempts(folder: Path) -> None:
    rollouts = [r for i, r in enumerate(random_rollouts(9)) if i % 3 == 2]
    request = requests(rollouts, [False] * 3)[0]
    rewarded = type(request)(
        step=0, advantages=(1.0, 1.0, 1.0), scored=request.scored, micro_batches=request.micro_batches
    )
    with one_rank(make_config(folder, objective=GRPO)) as learner:
        first = learner.train(rewarded, *rollouts)
        for _ in range(5):
            learner.train(rewarded, *rollouts)
        before = -first["loss"]
        last = learner.train(rewarded, *rollouts)
    # Each token's surrogate is the truncated weight of student over engine: more probable tokens weigh more.
    assert -last["loss"] > before


def test_batch_without_signal_changes_nothing(folder: Path) -> None:
    rollouts = random_rollouts(4)
    with one_rank(make_config(folder)) as learner:
        before = masters(learner)
        metrics = learner.train(requests(rollouts, [False] * 4)[0], *rollouts)
        assert learner.update_teacher() is False
        assert all(torch.equal(before[n], w) for n, w in masters(learner).items())
    assert (metrics["loss"], metrics["active_tokens"], metrics["skipped"], metrics["optimizer_step"]) == (0, 0, 1, 0)


def test_gradient_that_is_not_finite_skips_the_step(folder: Path) -> None:
    rollouts = random_rollouts(4)
    flags, scores = scored(rollouts)
    scores[0].support_log_probs[0, 0] = np.nan
    with one_rank(make_config(folder)) as learner:
        before = masters(learner)
        metrics = learner.train(requests(rollouts, flags)[0], *rollouts, *scores)
        assert metrics["skipped"] == 1
        assert learner.update_teacher() is False
        assert all(torch.equal(before[n], w) for n, w in masters(learner).items())
        good = learner.train(requests(rollouts, flags)[0], *rollouts, *scored(rollouts)[1])
        assert (good["skipped"], good["optimizer_step"]) == (0, 1)
        assert learner.update_teacher() is True
        assert learner.update_teacher() is False


def test_warmup_and_clipping(folder: Path) -> None:
    optimizer = {"learning_rate": 1e-3, "warmup_steps": 4, "max_grad_norm": 1e-4}
    rollouts = random_rollouts(4)
    flags, scores = scored(rollouts)
    with one_rank(make_config(folder, learner={"optimizer": optimizer})) as learner:
        request = requests(rollouts, flags)[0]
        steps = [learner.train(request, *rollouts, *scores) for _ in range(5)]
        assert float(gradients(learner).norm()) == pytest.approx(1e-4, rel=1e-2)
    assert [s["learning_rate"] for s in steps] == pytest.approx([2.5e-4, 5e-4, 7.5e-4, 1e-3, 1e-3])
    assert all(s["grad_norm"] > 2e-4 for s in steps)


def test_engine_gap_is_zero_when_the_engine_agrees(folder: Path) -> None:
    config = make_config(folder)
    rollouts = random_rollouts(8)
    teacher = TeacherWorker(config, 0)
    teacher.start(VERSION)
    same = scores_only(teacher.score(VERSION, 1.0, [hindsight_of(r) for r in rollouts], *rollouts))
    honest = []
    for rollout, score in zip(rollouts, same, strict=True):
        places = np.split(score.sampled_log_probs, np.cumsum([len(s.token_ids) for s in rollout.segments])[:-1])
        segments = [
            Segment(author=s.author, token_ids=s.token_ids, log_probs=place, support_ids=s.support_ids)
            if s.author == "model"
            else s
            for s, place in zip(rollout.segments, places, strict=True)
        ]
        honest.append(
            Rollout(
                task_id=rollout.task_id,
                sample_index=rollout.sample_index,
                prompt_ids=rollout.prompt_ids,
                segments=tuple(segments),
                finish_reason=FinishReason.STOP,
            )
        )
    with one_rank(config) as learner:
        metrics = learner.train(requests(honest, [True] * 8)[0], *honest, *same)
    assert metrics["engine_gap_mean"] <= metrics["engine_gap_p99"] <= 1e-4
    assert metrics["is_clipped_fraction"] == 0


def test_objects_that_do_not_belong_together_are_refused(folder: Path) -> None:
    rollouts = random_rollouts(2)
    flags, scores = scored(rollouts)
    with one_rank(make_config(folder)) as learner:
        with pytest.raises(InfrastructureError, match="came with rollout"):
            learner.train(requests(rollouts, flags)[0], *rollouts, *reversed(scores))
        with pytest.raises(InfrastructureError, match="3 objects for 2 rollouts"):
            learner.train(requests(rollouts, flags)[0], *rollouts, scores[0])

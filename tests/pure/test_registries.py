"""The tables of objectives, divergences, estimators, teachers and backends: every entry is whole."""

import json
from typing import Any, get_args

import pytest
import torch
from pydantic import ValidationError

from learner.backends import backend_module
from learner.checkpoint import verify_alone
from learner.stored import open_stored
from sdpo.backends import BACKENDS
from sdpo.config import LearnerConfig, RunConfig
from sdpo.divergence import DIVERGENCES
from sdpo.errors import CheckpointError
from sdpo.estimators import ESTIMATORS
from sdpo.objectives import sdpo
from sdpo.objectives.base import Objective
from sdpo.objectives.registry import ObjectiveConfig
from sdpo.teachers import TeacherKind
from tests.fixtures.objective import SAMPLED, SEQUENCE, SURROGATE

OBJECTIVES: tuple[type[Objective], ...] = get_args(get_args(ObjectiveConfig)[0])


def config_of(**objective: Any) -> RunConfig:
    return RunConfig.model_validate({"objective": objective})


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_an_objective_declares_itself(objective: type[Objective]) -> None:
    (kind,) = get_args(objective.model_fields["kind"].annotation)
    made = objective.model_validate({"kind": kind})
    assert made.needs.teacher or made.needs.unscored, "else nothing would ever be trained"
    assert (made.needs.support is None) == (made.needs.support_size == 0)
    assert made.label
    assert made.describe()
    assert made.summary()
    assert config_of(kind=kind).objective == made


@pytest.mark.parametrize(
    ("objective", "description", "summary"),
    [
        ({"kind": "sdpo"}, "SDPO, js by estimator support, support rollout of 20 tokens and a tail", "sdpo, js"),
        (
            {"kind": "sdpo", "support": "teacher", "top_k": 5, "tail": False, "grpo_weight": 0.9},
            "SDPO, js by estimator support, support teacher of 5 tokens, mixed with GRPO at weight 0.9",
            "sdpo, js, GRPO weight 0.9",
        ),
        (
            {"kind": "sdpo", **SEQUENCE},
            "SDPO, reverse_kl by estimator sequence",
            "sdpo, reverse_kl, sequence",
        ),
        ({"kind": "grpo"}, "GRPO, clipped at 0.2 and 0.28", "grpo"),
    ],
    ids=str,
)
def test_the_words_of_model_card_and_report(objective: dict[str, Any], description: str, summary: str) -> None:
    made = config_of(**objective).objective
    assert (made.describe(), made.summary()) == (description, summary)


@pytest.mark.parametrize(
    ("objective", "needs"),
    [
        ({}, {"support": "rollout", "support_size": 20}),
        ({"support": "full", "top_k": 0, "full_support_mib": 7}, {"support": "full", "full_support_mib": 7.0}),
        ({"tail": False}, {"support": "rollout", "support_size": 20, "tail": False}),
        ({"grpo_weight": 0.5}, {"unscored": True, "advantage": True}),
        ({"reference_kl": 0.1}, {"reference": True}),
        (SAMPLED, {"support": None, "old_policy": False}),
        (SEQUENCE, {"support": None, "old_policy": True, "sequence_advantage": True}),
        (SURROGATE, {"support": "rollout", "old_bins": True}),
    ],
    ids=str,
)
def test_what_self_distillation_needs(objective: dict[str, Any], needs: dict[str, Any]) -> None:
    found = config_of(kind="sdpo", **objective).objective.needs
    assert found.teacher
    assert found.unscored == needs.get("unscored", False)
    assert {name: getattr(found, name) for name in needs} == needs


def test_estimators_are_declared_and_computed() -> None:
    assert sdpo.ESTIMATORS.keys() == ESTIMATORS.keys()


@pytest.mark.parametrize("name", DIVERGENCES)
def test_a_divergence_is_its_formula(name: str) -> None:
    """As it is trained and as it is read: the same value, 0 for equal distributions, finite gradients."""
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(2, 50, 9, generator=generator, dtype=torch.float64)
    log_p, log_q = (side.log_softmax(-1) for side in logits)
    log_p.requires_grad_()
    losses = DIVERGENCES[name].of_log_probs(log_p, log_q, 0.3)
    formula = [DIVERGENCES[name].formula(p, q, 0.3) for p, q in zip(log_p.exp(), log_q.exp(), strict=True)]
    torch.testing.assert_close(losses, torch.stack(formula))
    assert (losses > 0).all()
    assert DIVERGENCES[name].of_log_probs(log_q, log_q, 0.3).abs().max() < 1e-12
    losses.sum().backward()
    assert log_p.grad is not None
    assert log_p.grad.isfinite().all()


@pytest.mark.parametrize("teacher", get_args(get_args(TeacherKind)[0]))
def test_a_teacher_declares_itself(teacher: Any) -> None:
    (kind,) = get_args(teacher.model_fields["kind"].annotation)
    made = teacher.model_validate({"kind": kind})
    assert (made.average_rate is not None) == (made.stream == "teacher")
    assert 0 <= made.current_share <= 1
    assert made.describe().startswith(kind)


@pytest.mark.parametrize("name", BACKENDS)
def test_a_backend_has_its_functions(name: str) -> None:
    module = backend_module(name)
    assert callable(module.make)
    assert callable(module.open_stored)
    assert LearnerConfig(backend=name).backend == name


def test_names_outside_of_a_table_are_refused() -> None:
    with pytest.raises(ValidationError, match="Input should be 'fsdp2', "):
        LearnerConfig(backend="ddp")
    with pytest.raises(ValidationError, match="Input should be 'forward_kl', "):
        config_of(kind="sdpo", divergence="kl")


def test_a_checkpoint_of_an_unknown_backend_is_refused(tmp_path: Any) -> None:
    record = {"world_size": 1, "backend": "ddp", "files": {}}
    (tmp_path / "digests-rank0.json").write_text(json.dumps(record))
    assert verify_alone(str(tmp_path)) == (1, "ddp")
    with pytest.raises(CheckpointError, match="learner.backend=ddp; allowed: " + ", ".join(BACKENDS)):
        open_stored(tmp_path, "masters")

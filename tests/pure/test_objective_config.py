"""Which objectives a run file may ask for, and what each asks of the run."""

from typing import Any

import pytest
from pydantic import ValidationError

from sdpo.config import RunConfig, SdpoObjective

SAMPLED = {"estimator": "sampled_token", "divergence": "reverse_kl", "top_k": 0}
SEQUENCE = {**SAMPLED, "estimator": "sequence"}
SURROGATE = {"estimator": "clipped_surrogate", "divergence": "reverse_kl"}


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"estimator": "sampled_token", "top_k": 0}, "divergence=js: allowed with sampled_token: reverse_kl"),
        ({**SAMPLED, "top_k": 20}, "top_k=20: allowed with estimator=sampled_token, support=rollout: 0"),
        ({**SAMPLED, "support": "student"}, "support=student: allowed with sampled_token, which needs none: rollout"),
        ({**SEQUENCE, "support": "full"}, "support=full: allowed with sequence, which needs none: rollout"),
        ({**SURROGATE, "support": "teacher"}, "support=teacher: allowed with clipped_surrogate: rollout, student"),
        ({**SURROGATE, "support": "full", "top_k": 0}, "support=full: allowed with clipped_surrogate: rollout, stud"),
        ({**SURROGATE, "tail": False}, "tail=false: allowed with clipped_surrogate: true"),
        ({"support": "full"}, "top_k=20: allowed with estimator=support, support=full: 0"),
        ({"top_k": 0}, "top_k=0: allowed with estimator=support, support=rollout: 1 and more"),
        ({"advantage_clip": 5.0}, "divergence=js: allowed with advantage_clip: reverse_kl"),
    ],
    ids=str,
)
def test_what_cannot_work_is_refused_in_one_line(changes: dict[str, Any], line: str) -> None:
    with pytest.raises(ValidationError) as caught:
        SdpoObjective.model_validate({"kind": "sdpo", **changes})
    (error,) = caught.value.errors()
    assert f"objective.{line}" in error["msg"]


@pytest.mark.parametrize(
    ("objective", "mini_batch_tasks", "needs_old_policy", "rollout_support_size"),
    [
        ({}, None, False, 20),
        ({}, 1, True, 20),
        ({"support": "student"}, None, True, 0),
        ({"support": "teacher"}, None, False, 0),
        ({"support": "full", "top_k": 0}, None, False, 0),
        (SAMPLED, None, False, 0),
        (SEQUENCE, None, True, 0),
        (SURROGATE, None, False, 20),
        ({**SURROGATE, "support": "student"}, None, True, 0),
        ({"kind": "grpo"}, None, False, 0),
        ({"kind": "grpo"}, 2, True, 0),
    ],
    ids=str,
)
def test_what_an_objective_asks_of_the_run(
    objective: dict[str, Any], mini_batch_tasks: int | None, needs_old_policy: bool, rollout_support_size: int
) -> None:
    """pi_old is recorded for several steps, for the student's support, and for sequence-level advantages."""
    batch = {"tasks": 4, "mini_batch_tasks": mini_batch_tasks}
    config = RunConfig.model_validate({"objective": {"kind": "sdpo", **objective}, "batch": batch})
    assert config.needs_old_policy == needs_old_policy
    assert config.rollout_support_size == rollout_support_size
    assert config.uses_teacher == (objective.get("kind") != "grpo")

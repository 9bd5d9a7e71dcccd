"""What the teachers are asked about a group, and when."""

import asyncio
from typing import Any

import pytest

from orchestrator.actors.teacher_client import GroupScorer
from sdpo.types import Version
from tests.fixtures.orchestrator import OneTeacher, config_of, group, values_of

VERSION = Version(incarnation=0, batch=3)
STUDENT = {"kind": "sdpo", "support": "student", "top_k": 4}
ROLLOUT = {"kind": "sdpo", "support": "rollout", "top_k": 4}
MIX = ROLLOUT | {"grpo_weight": 0.2}
GRPO = {"kind": "grpo"}


@pytest.mark.parametrize(
    ("objective", "scored", "referred"),
    [
        (ROLLOUT, True, []),
        (ROLLOUT | {"reference_kl": 0.1}, True, ["0.0", "0.2"]),
        (MIX | {"reference_kl": 0.1}, True, ["0.0", "0.1", "0.2"]),
        (STUDENT | {"reference_kl": 0.1}, False, ["0.0", "0.2"]),
        (GRPO | {"reference_kl": 0.1}, False, ["0.0", "0.1", "0.2"]),
    ],
)
def test_teachers_are_asked_at_once_for_all_but_the_students_support(
    objective: dict[str, Any], scored: bool, referred: list[str]
) -> None:
    teachers, judged = OneTeacher(dying=1), group(0, [True, False, True])
    asyncio.run(GroupScorer(config_of(objective=objective), teachers).on_verdicts(judged, VERSION))  # type: ignore[arg-type]
    assert values_of([judged], "scores") == ({f"0.{i}": f"score(0.{i})" for i in (0, 2)} if scored else {})
    assert values_of([judged], "reference") == {name: f"reference({name})" for name in referred}
    assert teachers.reported == [teachers.handle], "the teacher that died is replaced, and the question asked again"


def test_nobody_is_asked_about_a_group_without_signal() -> None:
    teachers = OneTeacher()
    scorer = GroupScorer(config_of(objective=ROLLOUT | {"reference_kl": 0.1}), teachers)  # type: ignore[arg-type]
    asyncio.run(scorer.on_verdicts(group(0, [False, False]), VERSION))
    assert teachers.calls == []

"""The loop with its parts replaced by plain objects."""

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

import orchestrator.loop
from orchestrator.group import Group
from sdpo.types import Version
from tests.fixtures.orchestrator import config_of, group

VERSION = Version(incarnation=0, batch=3)


def test_the_learner_gets_the_groups_in_the_order_of_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long each of them took: what is summed in another order is another run."""
    seen: list[list[int]] = []

    async def updated(actors: Any, batch_index: int, groups: Sequence[Group], *_: Any) -> dict[str, float]:
        seen.append([g.index for g in groups])
        return {}

    class Pipeline:
        source = SimpleNamespace(expect=lambda task_ids: None)

        async def run(self, batch_index: int, index: int, task: Any, version: Version) -> Group:
            await asyncio.sleep(0.01 * (4 - index))
            return group(index, [True])

    async def nothing(*_: Any) -> dict[str, float]:
        return {}

    monkeypatch.setattr(orchestrator.loop, "train_and_publish", updated)
    envs = SimpleNamespace(figures=nothing)
    actors = SimpleNamespace(config=config_of(steps=2, batch={"tasks": 4}), teacher_version=VERSION, envs=envs)
    recorder = SimpleNamespace(evaluate_if_due=nothing, record=nothing)
    tasks: Any = SimpleNamespace(batch=lambda step: [group(i, []).task for i in range(4)])
    loop: Any = orchestrator.loop.train
    done = asyncio.run(
        loop(actors, Pipeline(), tasks, recorder, incarnation=1, steps_done=0, stop=asyncio.Event()),
    )
    assert done == 2
    assert seen == [[0, 1, 2, 3]] * 2

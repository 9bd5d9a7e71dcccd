"""Memory of a run's processes, summed by role, with actors that are busy or dead."""

import asyncio
import math
from typing import Any

from ray.exceptions import RayActorError

from orchestrator.actors.memory import MemoryGauge
from tests.fixtures.metrics_page import undocumented
from tests.fixtures.orchestrator import Ref


class Actor:
    """Answers the question for its memory with `answer`, or never."""

    def __init__(self, answer: Any) -> None:
        self.asked, self._answer = 0, answer
        self.memory = self

    def remote(self) -> Any:
        self.asked += 1
        return asyncio.get_running_loop().create_future() if self._answer is None else Ref(self._answer)


class RunActors:
    def __init__(self, **actors: Actor) -> None:
        self.actors = [(name.split("_")[0], name, actor) for name, actor in actors.items()]


def test_memory_is_summed_by_role_without_waiting() -> None:
    busy, dead = Actor(None), Actor(RayActorError())
    ranks = {f"learner_{i}": Actor({"bytes": 5, "gpu_bytes": 100 + i}) for i in range(2)}
    actors: Any = RunActors(teacher_0=busy, teacher_1=Actor({"bytes": 7}), rollout_0=dead, **ranks)

    async def steps() -> dict[str, float]:
        gauge = MemoryGauge(actors)
        assert gauge.figures().keys() == {"memory/orchestrator_bytes"}, "no actor has answered"
        for _ in range(3):
            gauge.ask()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        return gauge.figures()

    found = asyncio.run(steps())
    own_bytes = found.pop("memory/orchestrator_bytes")
    assert found == {"memory/teacher_bytes": 7.0, "memory/learner_bytes": 10.0, "memory/learner_gpu_bytes": 201.0}
    assert 2**20 < own_bytes < 2**40
    assert math.isfinite(own_bytes)
    assert busy.asked == 1, "one question at a time"
    assert dead.asked > 1, "its successor is asked again"
    assert undocumented(found) == []

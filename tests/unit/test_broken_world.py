"""A run whose attempts are lost to infrastructure errors ends, in training and in evaluation, and says why."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import numpy as np
import pytest

from orchestrator.attempts import Played
from orchestrator.evaluation import Evaluator
from orchestrator.failures import refuse_a_broken_world
from sdpo.config import RunConfig
from sdpo.errors import InfrastructureError
from sdpo.types import FinishReason, GenerationRequest, RolloutHeader, Task, Verdict

CONFIG = RunConfig.model_validate({"evaluation": {"samples_per_task": 1}})
PASSED = Verdict(reward=1.0, success=True, kind="passed")
BROKEN = Verdict(reward=None, success=False, kind="infrastructure_error", infrastructure_error="the engine is away")


def test_the_most_frequent_reason_is_named() -> None:
    errors = ["the engine is away", None, "the image is missing", "the engine is away"]
    refuse_a_broken_world(0.2, CONFIG, errors=errors)
    with pytest.raises(InfrastructureError) as refused:
        refuse_a_broken_world(0.4, CONFIG, errors=errors)
    assert str(refused.value) == (
        "40% of a batch's attempts were lost to infrastructure errors; "
        "allowed: env.max_dropped_fraction=20%; most often: the engine is away"
    )


class Sampler:
    """One sample a request."""

    def expect(self, task_ids: Sequence[str]) -> None: ...

    async def sample(self, request: GenerationRequest) -> AsyncIterator[tuple[RolloutHeader, Any]]:
        yield HEADER, None


HEADER = RolloutHeader(
    task_id="t",
    sample_index=0,
    text="",
    reply="",
    num_prompt_tokens=1,
    num_response_tokens=1,
    num_environment_tokens=0,
    num_turns=1,
    last_token_id=0,
    finish_reason=FinishReason.STOP,
    versions=(),
)


@pytest.mark.parametrize(("num_lost", "refused"), [(1, False), (2, True)])
def test_an_evaluation_that_lost_too_much_is_no_result(
    num_lost: int, refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = [Task(id=str(i), messages=(), environment="code", payload={}) for i in range(5)]
    monkeypatch.setattr("orchestrator.evaluation.render_prompt", lambda *_, **__: np.zeros(1, np.int32))

    async def play(self: Any, label: str, task: Task, *_: Any) -> Played:
        return Played(header=HEADER, rollout=None, verdict=BROKEN if int(task.id) < num_lost else PASSED)

    monkeypatch.setattr("orchestrator.attempts.Attempts.play", play)
    evaluating = Evaluator(CONFIG, None, Sampler(), None).evaluate(tasks)  # type: ignore[arg-type]
    if refused:
        with pytest.raises(InfrastructureError, match=r"40% of an evaluation's attempts.*the engine is away"):
            asyncio.run(evaluating)
    else:
        assert len(asyncio.run(evaluating)) == 5

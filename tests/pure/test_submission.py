"""Handing a batch to a paused engine, without vLLM."""

import asyncio
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sdpo.types import GenerationRequest, SamplingParams


@pytest.fixture
def submission(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module, imported with a stand-in for the one that imports vllm."""
    generation: Any = ModuleType("rollout_workers.generation")
    generation.engine_sampling = lambda request, seed: seed
    monkeypatch.setitem(sys.modules, "rollout_workers.generation", generation)
    monkeypatch.delitem(sys.modules, "rollout_workers.submission", raising=False)
    import rollout_workers.submission as module

    monkeypatch.delitem(sys.modules, "rollout_workers.submission")
    return module


class Engine:
    """Accepts requests in the order in which they arrive; refuses the one named `refused`."""

    def __init__(self, refused: str = "") -> None:
        self.log, self.refused = list[Any](), refused
        self.released = asyncio.Event()

    async def pause_generation(self, **options: Any) -> None:
        self.log.append(("pause", options))

    async def resume_generation(self) -> None:
        self.log.append("resume")

    async def add_request(self, name: str, prompt: Any, sampling: Any) -> Any:
        await asyncio.sleep(0)
        if name == self.refused:
            raise ValueError("refused")
        self.log.append((name, prompt["prompt_token_ids"], sampling))

        async def get() -> Any:
            await self.released.wait()
            return SimpleNamespace(finished=True, name=name)

        return SimpleNamespace(request_id=name, get=get)

    async def abort(self, request_id: str, internal: bool) -> None:
        self.log.append(("abort", request_id, internal))


def requests() -> list[GenerationRequest]:
    sampling = SamplingParams(temperature=1.0, max_tokens=2)
    return [
        GenerationRequest(
            task_id=name,
            prompt_ids=np.array(ids, np.int32),
            sample_indices=(0, 1),
            seeds=seeds,
            sampling=sampling,
            support_size=0,
        )
        for name, ids, seeds in (("a", [1], (10, 11)), ("b", [2, 3], (20, 21)))
    ]


def test_a_paused_engine_receives_the_batch_in_order_and_then_resumes(submission: Any) -> None:
    async def scenario() -> None:
        engine = Engine()
        submitted = await submission.submit(engine, requests(), "batch-1")
        assert engine.log == [
            ("pause", {"mode": "keep", "clear_cache": False}),
            ("batch-1/0/0", [1], 10),
            ("batch-1/0/1", [1], 11),
            ("batch-1/1/0", [2, 3], 20),
            ("batch-1/1/1", [2, 3], 21),
            "resume",
        ]
        engine.released.set()
        assert [(await sample.output()).name for sample in submitted] == [
            f"batch-1/{i}/{j}" for i in (0, 1) for j in (0, 1)
        ]
        assert engine.log[-1] == "resume", "a finished sample is not aborted"

    asyncio.run(scenario())


def test_the_engine_resumes_when_a_request_is_refused(submission: Any) -> None:
    async def scenario() -> None:
        engine = Engine(refused="batch-1/1/0")
        with pytest.raises(ValueError, match="refused"):
            await submission.submit(engine, requests(), "batch-1")
        assert engine.log[-1] == "resume"

    asyncio.run(scenario())


def test_a_cancelled_wait_aborts_the_sample_in_the_engine(submission: Any) -> None:
    async def scenario() -> None:
        engine = Engine()
        submitted = await submission.submit(engine, requests(), "batch-1")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(submitted[2].output(), 0.02)
        assert engine.log[-1] == ("abort", "batch-1/1/0", True)

    asyncio.run(scenario())

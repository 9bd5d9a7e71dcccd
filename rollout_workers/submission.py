"""Submits a whole batch of requests to the engine, in the given order.

The engine's results depend, in their last bits, on which sequences share a forward pass. While it is paused it accepts
requests and starts none of them; when it resumes, its queue is the batch in order, independent of timing. No other
request may run on the engine meanwhile.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rollout_workers.generation import engine_sampling
from sdpo.types import GenerationRequest

if TYPE_CHECKING:
    from vllm.outputs import RequestOutput
    from vllm.v1.engine.async_llm import AsyncLLM


class Submitted:
    """One sample that the engine has accepted."""

    def __init__(self, engine: "AsyncLLM", request: GenerationRequest, sample_index: int, collector: Any) -> None:
        self.request, self.sample_index = request, sample_index
        self._engine, self._collector = engine, collector

    async def output(self) -> "RequestOutput":
        """Return the finished sample. Cancelling the wait aborts the sample in the engine."""
        finished = False
        try:
            output: RequestOutput = await self._collector.get()
            finished = output.finished
            return output
        finally:
            if not finished:
                await self._engine.abort(self._collector.request_id, internal=True)


async def submit(engine: "AsyncLLM", requests: Sequence[GenerationRequest], prefix: str) -> list[Submitted]:
    """Queue every sample of every request while the engine is paused, then resume it.

    `prefix`: begins the engine's names of the samples, which must differ from those of other batches.
    """
    await engine.pause_generation(mode="keep", clear_cache=False)
    try:
        submitted = []
        for number, request in enumerate(requests):
            prompt: Any = {"prompt_token_ids": request.prompt_ids.tolist()}
            for index, seed in zip(request.sample_indices, request.seeds, strict=True):
                # one at a time: the engine's queue has the order in which the calls return
                name = f"{prefix}/{number}/{index}"
                collector = await engine.add_request(name, prompt, engine_sampling(request, seed))
                submitted.append(Submitted(engine, request, index, collector))
        return submitted
    finally:
        await engine.resume_generation()

"""The rollout worker in processes of its own that are forked from one which has imported vLLM: the second engine of a
test module starts in seconds."""

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

from sdpo.config import RunConfig
from sdpo.types import GenerationRequest, Rollout, RolloutHeader

ANSWER_S = 240
IMPORTED_ONCE = ["vllm.v1.engine.async_llm", "vllm.v1.worker.cpu_worker", "rollout_workers.receiver"]


class EngineProcess:
    """`RolloutWorker`'s methods by name; errors are raised here."""

    def __init__(self, connection: "Connection[Any, Any]") -> None:
        self._connection = connection

    def call(self, method: str, *arguments: Any) -> Any:
        """What the method returns; a list of what it yields. Raises its error, or TimeoutError."""
        self._connection.send((method, arguments))
        if not self._connection.poll(ANSWER_S):
            raise TimeoutError(f"{method}: no answer within {ANSWER_S} s")
        failed, answer = self._connection.recv()
        if failed:
            raise answer
        return answer

    def samples(self, request: GenerationRequest) -> list[tuple[RolloutHeader, Rollout]]:
        """Every sample of a request, by sample index."""
        items = self.call("generate", request)
        return sorted(zip(items[::2], items[1::2], strict=True), key=lambda pair: pair[0].sample_index)


@contextmanager
def engine_process(config: RunConfig) -> Iterator[EngineProcess]:
    """A started worker; closed at the end."""
    os.environ.update(VLLM_LOGGING_LEVEL="WARNING", OMP_WAIT_POLICY="PASSIVE", OMP_NUM_THREADS="1")
    context = get_context("forkserver")
    context.set_forkserver_preload(IMPORTED_ONCE)
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, config), daemon=False)
    process.start()
    theirs.close()
    try:
        engine = EngineProcess(ours)
        engine.call("start")
        yield engine
        engine.call("close")
    finally:
        ours.close()
        process.join(10)
        if process.is_alive():
            process.kill()


def _serve(connection: "Connection[Any, Any]", config: RunConfig) -> None:
    import vllm.model_executor.models.registry
    import vllm.v1.engine.utils

    from rollout_workers.worker import RolloutWorker

    # vLLM would start processes that import everything once more: to look at the model's class, and on CPUs its engine
    vllm.model_executor.models.registry._run_in_subprocess = lambda look: look()
    vllm.v1.engine.utils.get_mp_context = lambda: get_context("fork")
    worker = RolloutWorker(config, 0)

    async def answer(method: str, arguments: tuple[Any, ...]) -> Any:
        asked = getattr(worker, method)(*arguments)
        return [item async for item in asked] if hasattr(asked, "__aiter__") else await asked

    while True:
        try:
            method, arguments = connection.recv()
        except EOFError:
            return
        try:
            connection.send((False, asyncio.run(answer(method, arguments))))
        except Exception as error:
            connection.send((True, error))

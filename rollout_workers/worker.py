"""The rollout worker: one vLLM engine behind a Ray actor.

`RolloutWorker` is a plain class; `RolloutActor` is the same class for Ray, with concurrency groups that keep health
checks apart from updates and updates apart from generation.
"""

import asyncio
import functools
import logging
import os
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
import ray

from rollout_workers.engine import (
    check_libraries,
    check_limits,
    check_model_folder,
    engine_args,
    first_cause,
    plain_model_path,
    prepare_environment,
)
from rollout_workers.engine_metrics import stat_logger
from rollout_workers.loop_thread import LoopThread
from rollout_workers.process_reaper import ProcessReaper
from rollout_workers.turns import merge_turn, turn_prompt
from sdpo.config import RunConfig
from sdpo.errors import ConfigError, InfrastructureError, PromptTooLong, StageTimeout, WeightSyncError
from sdpo.logs import set_up_logging
from sdpo.memory import resident_bytes
from sdpo.stacks import answer_stack_requests
from sdpo.storage_cache import with_local_model
from sdpo.types import GenerationRequest, Rollout, RolloutHeader, SamplingParams, TurnRequest, Version
from sdpo.weights import WeightAudit, WeightBucket, WeightManifest

if TYPE_CHECKING:
    from vllm.outputs import RequestOutput
    from vllm.v1.engine.async_llm import AsyncLLM

    from rollout_workers.receiver import EngineUpdate
    from rollout_workers.submission import Submitted

log = logging.getLogger(__name__)

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])
CONCURRENCY_GROUPS = {"generate": 256, "control": 1, "health": 4}


def _grouped(group: str, **options: Any) -> Callable[[F], F]:
    """`ray.method` with a type: the method runs in this concurrency group."""
    return cast("Callable[[F], F]", ray.method(concurrency_group=group, **options))


class State(StrEnum):
    """A worker serves in state `SERVING` only; requests that arrive in `UPDATING` wait; `BROKEN` is final."""

    NEW = "new"
    SERVING = "serving"
    UPDATING = "updating"
    BROKEN = "broken"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineInfo:
    """Facts of a started worker. pids: the engine's processes, all of which end with the actor."""

    name: str
    max_model_len_tokens: int
    vocab_size: int
    pids: tuple[int, ...]
    start_s: float


class RolloutWorker:
    """Samples attempts, and takes new weights between or during them, see `sdpo.weights`.

    After a failed update the worker is broken for good: every call but `health` and `close` raises.
    """

    def __init__(self, config: RunConfig, index: int) -> None:
        answer_stack_requests()
        actor = ray.get_runtime_context().get_actor_name() if ray.is_initialized() else None
        set_up_logging(actor)
        self.name = actor or f"rollout-{index}"
        self._config = config
        self._state = State.NEW
        self._failure = "not started"
        self._version = ""
        self._num_running = 0
        self._num_requests = 0
        self._thread = LoopThread(self.name)
        self._settled = asyncio.Event()
        self._engine: AsyncLLM | None = None
        self._update: EngineUpdate | None = None
        self._reaper: ProcessReaper | None = None
        self._scratch: Path | None = None
        self._decoder: Any = None

    def __repr__(self) -> str:
        """Return `rollout-0 v1.3 generating 64`; before the start only the name, which Ray keeps for its logs."""
        if self._state is State.NEW:
            return self.name
        serving = f"generating {self._num_running}" if self._num_running else "idle"
        return f"{self.name} v{self._version} {serving if self._state is State.SERVING else self._state}"

    @_grouped("control")
    async def start(
        self,
        version: Version = Version(incarnation=0, batch=0),  # noqa: B008
        run: str = "",
    ) -> EngineInfo:
        """Load the config's model as `version`. `run` labels the engine's own metrics; without one they are not sent.

        Raises `ModelError` or `ConfigError` for a model that cannot be loaded, `StageTimeout` past `deadlines.start_s`.
        """
        if self._state is not State.NEW:
            raise InfrastructureError(f"{self.name} was started before; it is {self._state}")
        started_s = time.monotonic()
        self._config = await asyncio.to_thread(with_local_model, self._config)
        check_libraries(self._config)
        check_limits(self._config, check_model_folder(Path(self._config.model.path)))
        await self._deadline("start", self._config.deadlines.start_s, self._start_engine(version, run))
        self._state = State.SERVING
        assert self._reaper is not None
        self._reaper.remember_segments()
        model = self._running_engine().model_config
        return EngineInfo(
            name=self.name,
            max_model_len_tokens=model.max_model_len,
            vocab_size=model.get_vocab_size(),
            pids=self._reaper.pids(),
            start_s=time.monotonic() - started_s,
        )

    @_grouped("generate", num_returns="streaming")
    async def generate(self, request: GenerationRequest) -> AsyncIterator[RolloutHeader | Rollout]:
        """Yield for every sample, as it finishes, its `RolloutHeader` and then its `Rollout`.

        Samples that finish during a weight update are yielded after its audit. Raises `PromptTooLong` (nothing is cut),
        `WeightSyncError` on a broken worker, `StageTimeout` if none finishes within `deadlines.generate_s`.
        """
        self._check_request(request)
        numbers = zip(request.sample_indices, request.seeds, strict=True)
        samples = [self._sample(request, index, seed) for index, seed in numbers]
        async for item in self._as_they_finish(samples, f"a sample of task {request.task_id}"):
            yield item

    @_grouped("generate", num_returns="streaming")
    async def extend(self, turn: TurnRequest, previous: Rollout) -> AsyncIterator[RolloutHeader | Rollout]:
        """Sample the model's next turn; yield the header, then the rollout, of the whole attempt.

        Raises as `generate`.
        """
        request = turn_prompt(turn, previous)
        self._check_request(request)
        async for item in self._as_they_finish(
            [self._next_turn(turn, previous, request)], f"a turn of task {turn.task_id}"
        ):
            yield item

    @_grouped("generate", num_returns="streaming")
    async def generate_batch(self, requests: Sequence[GenerationRequest]) -> AsyncIterator[RolloutHeader | Rollout]:
        """As `generate`, for all samples of `requests`: the engine is paused until it has received the whole batch.

        On an engine that serves no other request meanwhile, the samples are a function of its weights and of
        `requests` in their order, to the last bit. Raises as `generate`.
        """
        for request in requests:
            self._check_request(request)
        timeout_s = self._config.deadlines.generate_s
        submitted = await self._deadline("taking a batch", timeout_s, self._submit(tuple(requests)))
        samples = [self._finish(s.request, s.sample_index, s.output()) for s in submitted]
        async for item in self._as_they_finish(samples, "a sample of a batch"):
            yield item

    @_grouped("control")
    async def begin_update(self, version: Version) -> None:
        """Pause the engine and prepare it for the weights of `version`. Running requests continue afterwards."""
        await self._step("begin_update", State.SERVING, functools.partial(self._begin_update, version))

    @_grouped("control")
    async def receive_bucket(self, bucket: WeightBucket) -> None:
        """Check one bucket and load it into the engine."""
        await self._step("receive_bucket", State.UPDATING, lambda: self._running_update().receive(bucket))

    @_grouped("control")
    async def finish_update(self, manifest: WeightManifest) -> WeightAudit:
        """Complete the update, resume, and audit it with the manifest's probe; then the worker serves again."""
        return await self._step("finish_update", State.UPDATING, functools.partial(self._finish_update, manifest))

    @_grouped("control")
    async def init_transfer(self, init_info: dict[str, Any]) -> None:
        """Do the handshake of vLLM's own backends (`nccl`, `ipc`) with vLLM's trainer side, after `begin_update`.

        It is needed once for a set of receivers; a new one replaces it.
        """
        await self._step("init_transfer", State.UPDATING, lambda: self._running_update().join(init_info))

    @_grouped("control")
    async def update_from_transfer(self, update_info: dict[str, Any]) -> None:
        """Receive the tensors that `update_info` names by vLLM's own backends, within an update."""
        stage = "update_from_transfer"
        await self._step(stage, State.UPDATING, lambda: self._running_update().receive_announced(update_info))

    @_grouped("health")
    async def health(self) -> dict[str, Any]:
        """Return name, pid, state, alive (the engine), version, running (samples), failure (why it does not serve)."""
        engine = self._engine
        alive = engine is not None and not engine.errored
        return {
            "name": self.name,
            "pid": os.getpid(),
            "state": str(self._state),
            "alive": alive and self._state not in (State.BROKEN, State.CLOSED),
            "version": self._version,
            "running": self._num_running,
            "failure": "" if self._state in (State.SERVING, State.UPDATING) else self._failure,
        }

    @_grouped("health")
    async def memory(self) -> dict[str, int]:
        """Return the resident `bytes` of this process and the engine's."""
        return {"bytes": await asyncio.to_thread(resident_bytes)}

    @_grouped("control")
    async def close(self) -> None:
        """End the engine and its processes. A closed worker cannot be started again."""
        if self._state is State.CLOSED:
            return
        self._state, self._failure = State.CLOSED, "closed"
        if self._engine is not None:
            await self._thread.run(self._shut_down())
        if self._reaper is not None:
            self._reaper.release()
        self._thread.stop()

    # ---- runs on the engine's event loop

    async def _start_engine(self, version: Version, run: str) -> None:
        scratch = Path(tempfile.mkdtemp(prefix="sdpo-rollout-"))
        self._reaper = ProcessReaper(scratch)
        prepare_environment(self._config, scratch, self.name)
        from transformers import AutoTokenizer
        from vllm.v1.engine.async_llm import AsyncLLM

        import rollout_workers.transfer  # noqa: F401  (registers our weight-transfer engine here as well)

        self._decoder = AutoTokenizer.from_pretrained(self._config.model.path)
        loggers: Any = [stat_logger(run, self.name)] if run else []
        self._scratch, path = scratch, plain_model_path(self._config.model.path, scratch)
        try:
            self._engine = AsyncLLM.from_engine_args(engine_args(self._config, path), stat_loggers=loggers)
        except Exception as error:  # vLLM raises whatever its parts raise
            raise InfrastructureError(
                f"{self.name}: the engine did not start: {first_cause(scratch, error)}"
            ) from error
        await self._engine.update_weight_version(str(version))
        self._version = str(version)
        await self._warm_up(self._engine)
        self._settled.set()

    async def _warm_up(self, engine: "AsyncLLM") -> None:
        """Sample once: it compiles kernels that are compiled on first use, and shows that the engine works."""
        from rollout_workers.generation import engine_sampling

        request = GenerationRequest(
            task_id="warm-up",
            prompt_ids=np.zeros(1, np.int32),
            sample_indices=(0,),
            seeds=(0,),
            sampling=SamplingParams(temperature=1.0, max_tokens=2),
            support_size=self._config.rollout.max_logprobs,
        )
        prompt: Any = {"prompt_token_ids": request.prompt_ids.tolist()}
        async for _ in engine.generate(prompt, engine_sampling(request, 0), request.task_id):
            pass

    async def _sample(self, request: GenerationRequest, index: int, seed: int) -> tuple[RolloutHeader, Rollout]:
        from rollout_workers.generation import engine_sampling

        engine = self._running_engine()
        self._num_requests += 1
        request_id = f"{request.task_id}/{index}/{self._num_requests}"
        prompt: Any = {"prompt_token_ids": request.prompt_ids.tolist()}

        async def output() -> "RequestOutput":
            outputs = [o async for o in engine.generate(prompt, engine_sampling(request, seed), request_id)]
            return outputs[-1]

        return await self._finish(request, index, output())

    async def _next_turn(
        self, turn: TurnRequest, previous: Rollout, request: GenerationRequest
    ) -> tuple[RolloutHeader, Rollout]:
        return merge_turn(turn, previous, *await self._sample(request, turn.sample_index, turn.seed))

    async def _submit(self, requests: Sequence[GenerationRequest]) -> "list[Submitted]":
        from rollout_workers.submission import submit

        await self._settled.wait()
        self._require_usable()
        self._num_requests += 1
        return await submit(self._running_engine(), requests, f"batch-{self._num_requests}")

    async def _finish(
        self, request: GenerationRequest, sample_index: int, output: "Coroutine[Any, Any, RequestOutput]"
    ) -> tuple[RolloutHeader, Rollout]:
        """Wait for a sample's output, and for the end of an update that is under way."""
        from rollout_workers.generation import to_rollout

        with self._counted(request, sample_index):
            finished = await output
        await self._settled.wait()
        self._require_usable()
        return to_rollout(request, sample_index, finished, self._decoder)

    async def _begin_update(self, version: Version) -> None:
        from rollout_workers.receiver import EngineUpdate

        self._state, self._version = State.UPDATING, str(version)
        self._settled.clear()
        self._update = EngineUpdate(self._running_engine(), version, self._config.weights.bucket_bytes)
        await self._update.begin()

    async def _finish_update(self, manifest: WeightManifest) -> WeightAudit:
        audit = await self._running_update().finish(manifest, self._config)
        log.info("loaded the weights of v%s, %d bytes", self._version, audit.num_bytes)
        self._update = None
        self._state = State.SERVING
        self._settled.set()
        return audit

    async def _break(self, failure: str) -> None:
        """Stop serving for good: waiting samples fail, and the engine is paused."""
        self._state, self._failure = State.BROKEN, failure
        log.error("broken, serves no more requests: %s", failure)
        if self._update is not None:
            await self._update.abandon()
            self._update = None
        self._settled.set()
        engine = self._engine
        if engine is not None and not engine.errored:
            await engine.pause_generation(mode="abort", clear_cache=False)

    async def _shut_down(self) -> None:
        self._settled.set()
        self._running_engine().shutdown()

    # ---- runs on any thread

    @contextmanager
    def _counted(self, request: GenerationRequest, sample_index: int) -> Iterator[None]:
        """Count a sample that runs in the engine; turn the engine's own errors into `InfrastructureError`."""
        from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

        began_s, log_context = time.monotonic(), {"task": request.task_id}
        self._num_running += 1
        try:
            yield
            log.info("sample %d took %.3f s", sample_index, time.monotonic() - began_s, extra=log_context)
        except (EngineDeadError, EngineGenerateError) as error:
            assert self._scratch is not None
            why = first_cause(self._scratch, error) if isinstance(error, EngineDeadError) else str(error)
            raise InfrastructureError(f"{self.name}: the engine failed on task {request.task_id}: {why}") from error
        finally:
            self._num_running -= 1

    async def _as_they_finish(
        self, samples: "Sequence[Coroutine[Any, Any, tuple[RolloutHeader, Rollout]]]", stage: str
    ) -> AsyncIterator[RolloutHeader | Rollout]:
        """Yield header and rollout of each sample as it finishes; the deadline holds for each next one."""
        timeout_s = self._config.deadlines.generate_s
        pending = {asyncio.ensure_future(self._thread.run(sample)) for sample in samples}
        try:
            while pending:
                done, pending = await asyncio.wait(pending, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
                if not done:
                    raise StageTimeout(self.name, stage, timeout_s)
                for task in done:
                    header, rollout = task.result()
                    yield header
                    yield rollout
        finally:
            for task in pending:
                task.cancel()

    async def _step(self, stage: str, expected: State, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run one step of an update. Any failure breaks the worker and is raised as `WeightSyncError`."""
        self._require_usable()
        try:
            if self._state is not expected:
                raise WeightSyncError(f"{stage} came while the worker is {self._state}, not {expected}")
            return await self._deadline(stage, self._config.deadlines.weights_s, work())
        except Exception as error:  # after any error the weights in the engine are unknown
            await self._deadline("break", self._config.deadlines.weights_s, self._break(f"{stage}: {error}"))
            raise WeightSyncError(f"{self.name}: {error}") from error

    async def _deadline(self, stage: str, timeout_s: float, work: Coroutine[Any, Any, T]) -> T:
        try:
            return await asyncio.wait_for(self._thread.run(work), timeout_s)
        except TimeoutError as error:
            raise StageTimeout(self.name, stage, timeout_s) from error

    def _running_engine(self) -> "AsyncLLM":
        if self._engine is None:
            raise InfrastructureError(f"{self.name} is not started")
        return self._engine

    def _running_update(self) -> "EngineUpdate":
        assert self._update is not None
        return self._update

    def _require_usable(self) -> None:
        if self._state is State.BROKEN:
            raise WeightSyncError(f"{self.name} must not serve: {self._failure}")
        if self._state in (State.NEW, State.CLOSED):
            raise InfrastructureError(f"{self.name} does not serve: {self._failure}")

    def _check_request(self, request: GenerationRequest) -> None:
        self._require_usable()
        limit = self._config.model.max_model_len_tokens - request.sampling.max_tokens
        if len(request.prompt_ids) > limit:
            raise PromptTooLong(
                f"task {request.task_id}: its prompt has {len(request.prompt_ids)} tokens; allowed: at most {limit} "
                f"(model.max_model_len_tokens - the response's {request.sampling.max_tokens})"
            )
        if request.support_size > self._config.rollout.max_logprobs:
            raise ConfigError(
                f"support_size={request.support_size}: allowed: at most "
                f"rollout.max_logprobs={self._config.rollout.max_logprobs}"
            )


RolloutActor = ray.remote(concurrency_groups=CONCURRENCY_GROUPS)(RolloutWorker)

"""Plays attempts from their first turn to their verdict: the environment answers, the model goes on, until one ends.

The model ends nothing: an environment gives its verdict, or a bound is reached (`env.max_turns`, `env.attempt_s`, or
the tokens of `rollout.sampling.max_response_tokens`, the environment's included) and the environment judges what there
is. Every token of earlier turns stays as it is.
"""

import asyncio
import dataclasses
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from env_workers.environment import Ending, Exchange, Observation, Reply
from orchestrator.actors.env_client import History, broken
from orchestrator.actors.sampler import RolloutLost, Sampler
from orchestrator.batch.requests import AttemptRequest, training_request
from orchestrator.events import AttemptJudged, AttemptSampled, emit
from orchestrator.group import AttemptRecord
from sdpo.chat import ChatTokenizer, fit_turn, in_words, opens_thinking
from sdpo.config import RunConfig
from sdpo.errors import InfrastructureError
from sdpo.seeds import turn_seed
from sdpo.types import FinishReason, Message, RolloutHeader, Task, TurnRequest, Verdict

log = logging.getLogger(__name__)


class EnvSession(Protocol):
    """One attempt's environment, as `orchestrator.actors.env_client.EnvClient` describes the methods."""

    async def step(self, history: History, reply: Reply) -> Observation | Verdict: ...

    async def finish(self, history: History, ending: Ending) -> Verdict: ...

    def forget(self) -> None: ...


OpenSession = Callable[[str, int | None, Task], EnvSession]
"""Opens the environment of one attempt, by session name, batch index (None in an evaluation) and task."""


class Attempts:
    """Plays any number of attempts side by side; the `AttemptSource` of a run that samples."""

    def __init__(
        self,
        config: RunConfig,
        tokenizer: ChatTokenizer,
        sampler: Sampler,
        open_session: OpenSession,
        on_observation: Callable[[Sequence[Message]], None] = lambda shown: None,
    ) -> None:
        """`on_observation` is called with what the model reads of an observation, before the model's next turn."""
        self._config, self._tokenizer, self._sampler = config, tokenizer, sampler
        self._open_session, self._on_observation = open_session, on_observation

    def expect(self, task_ids: Sequence[str]) -> None:
        """Begin a batch: one request for each of `task_ids` follows, and no other before they have ended."""
        self._sampler.expect(task_ids)

    async def judged(self, batch_index: int, task: Task, seconds: dict[str, float]) -> list[AttemptRecord]:
        """Sample and judge the attempts at `task` in batch `batch_index`, as `AttemptSource.judged`."""
        request = training_request(self._config, self._tokenizer, batch_index, task)
        return await self.play_all(request, seconds=seconds)

    async def play_all(
        self,
        request: AttemptRequest,
        *,
        on_judged: Callable[[AttemptRecord], None] = lambda record: None,
        seconds: dict[str, float] | None = None,
    ) -> list[AttemptRecord]:
        """Sample `request` and play every sample to its verdict from the moment it ends; return them by sample index.

        `on_judged` is called with every attempt; an error that it raises ends all attempts. `seconds` gets the time of
        sampling as `generate`, and the time from then to the last verdict as `wait_environment`.
        """
        started_s = time.monotonic()

        async def finish(header: RolloutHeader, rollout: Any) -> AttemptRecord:
            emit(AttemptSampled(batch_index=request.batch_index))
            record = await self.play(request, header, rollout)
            emit(AttemptJudged(batch_index=request.batch_index, header=record.header, verdict=record.verdict))
            on_judged(record)
            return record

        async with asyncio.TaskGroup() as judging:
            samples = self._sampler.sample(request.generation)
            running = [judging.create_task(finish(*sample)) async for sample in samples]
            sampled_s = time.monotonic()
        if seconds is not None:
            seconds["generate"] = sampled_s - started_s
            seconds["wait_environment"] = time.monotonic() - sampled_s
        return sorted((task.result() for task in running), key=lambda record: record.header.sample_index)

    async def play(self, request: AttemptRequest, header: RolloutHeader, rollout: Any) -> AttemptRecord:
        """Play a sample of `request` to its verdict.

        When the tokens of earlier turns are lost with the node that held them, the attempt is sampled again from its
        first turn with the same seeds, at most `env.max_attempts` times in all.
        """
        reason, task = "", request.task
        for number in range(self._config.env.max_attempts):
            if number:
                header, rollout = await self._first_turn(request, header.sample_index)
            name = f"{request.label}/{task.id}/{header.sample_index}/{number}"
            session = self._open_session(name, request.batch_index, task)
            try:
                return await self._play(session, request, header, rollout)
            except RolloutLost as error:
                session.forget()
                reason = str(error)
                log.warning("%s; it is sampled again", reason)
        return AttemptRecord(task=task, header=header, rollout=rollout, verdict=broken(reason))

    async def _play(
        self, session: EnvSession, request: AttemptRequest, header: RolloutHeader, rollout: Any
    ) -> AttemptRecord:
        history: History = ()
        in_thinking = self._in_thinking(request.task)
        ends_s = time.monotonic() + self._config.env.attempt_s
        while True:
            cut = header.finish_reason is FinishReason.LENGTH
            reply = Reply(text=header.reply, truncated=cut, in_thinking=in_thinking)
            answer = await session.step(history, reply)
            if isinstance(answer, Observation):
                history = (*history, Exchange(reply=reply, observation=answer))
                turn = await self._next_turn(request, header, rollout, answer, ends_s)
                if not isinstance(turn, str):
                    header, rollout = turn
                    in_thinking = self._in_thinking(request.task, answer.messages)
                    continue
                answer = await session.finish(history, turn)
            return AttemptRecord(task=request.task, header=header, rollout=rollout, verdict=answer)

    def _in_thinking(self, task: Task, observation: Sequence[Message] = ()) -> bool:
        thinking = self._config.model.enable_thinking
        return opens_thinking(self._tokenizer, task.messages, observation, tools=task.tools, enable_thinking=thinking)

    async def _next_turn(
        self, request: AttemptRequest, header: RolloutHeader, rollout: Any, observation: Observation, ends_s: float
    ) -> tuple[RolloutHeader, Any] | Ending:
        """Return the attempt with one more turn, or the bound that ends it before that turn."""
        if header.num_turns >= self._config.env.max_turns:
            return "turns"
        turn = self._turn_request(request, header, observation)
        if turn is None:
            return "tokens"
        try:
            async with asyncio.timeout(ends_s - time.monotonic()):
                return await self._sampler.extend(turn, rollout) or "tokens"
        except TimeoutError:
            return "time"

    def _turn_request(
        self, request: AttemptRequest, header: RolloutHeader, observation: Observation
    ) -> TurnRequest | None:
        """Return the request for the next turn, or None when the tokens are used up.

        An observation gets at most half of the tokens that are left.
        """
        generation = request.generation
        left = generation.sampling.max_tokens - header.num_response_tokens
        if header.finish_reason is FinishReason.LENGTH:
            return None
        fitted = fit_turn(
            self._tokenizer,
            request.task.messages,
            observation.messages,
            left // 2,
            stop_id=header.last_token_id,
            tools=request.task.tools,
            enable_thinking=self._config.model.enable_thinking,
        )
        if fitted is None:
            return None
        observation_ids, shown = fitted
        self._on_observation(shown)
        first_seed = generation.seeds[generation.sample_indices.index(header.sample_index)]
        return TurnRequest(
            task_id=request.task.id,
            sample_index=header.sample_index,
            observation_ids=observation_ids,
            transcript=in_words(header.text, shown),
            seed=turn_seed(first_seed, header.num_turns),
            sampling=dataclasses.replace(generation.sampling, max_tokens=left - len(observation_ids)),
            support_size=generation.support_size,
        )

    async def _first_turn(self, request: AttemptRequest, sample_index: int) -> tuple[RolloutHeader, Any]:
        """Sample one of the request's attempts anew."""
        generation = request.generation
        seed = generation.seeds[generation.sample_indices.index(sample_index)]
        alone = dataclasses.replace(generation, sample_indices=(sample_index,), seeds=(seed,))
        samples = [sample async for sample in self._sampler.sample(alone)]
        if len(samples) != 1:
            raise InfrastructureError(f"task {request.task.id}: {len(samples)} samples came for one")
        return samples[0]

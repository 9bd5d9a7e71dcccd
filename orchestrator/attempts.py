"""Attempts from their first turn to their verdict: the environment answers, the model goes on, until one of them ends.

The model ends nothing: an environment gives its verdict, or a bound is reached (`env.max_turns`, `env.attempt_s`, or
the tokens of `rollout.sampling.max_response_tokens`, the environment's included) and the environment judges what there
is. Every token of earlier turns stays as it is.
"""

import asyncio
import dataclasses
import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from env_workers.environment import Ending, Exchange, Observation, Reply, environment_class
from orchestrator.fleet import Fleet
from orchestrator.rollouts import RolloutLost, Sampler
from orchestrator.telemetry import current
from orchestrator.world import History, World, broken
from sdpo.chat import ChatTokenizer, check_turns, fit_turn, in_words
from sdpo.config import RunConfig
from sdpo.errors import ConfigError, InfrastructureError
from sdpo.seeds import turn_seed
from sdpo.types import FinishReason, GenerationRequest, RolloutHeader, Task, TurnRequest, Verdict

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """An attempt that is over. `rollout` is a reference to all of its tokens."""

    header: RolloutHeader
    rollout: Any
    verdict: Verdict


def check_conversations(config: RunConfig, tokenizer: ChatTokenizer, tasks: Iterable[Task]) -> None:
    """Environments with several turns need a place in the chat template, and a run that is not in lockstep.

    Raises `ModelError` or `ConfigError` before anything is started.
    """
    if config.env.max_turns == 1:
        return
    for name in sorted({task.environment for task in tasks}):
        role = environment_class(name).observation_role
        if role is None:
            continue
        check_turns(tokenizer, role, enable_thinking=config.model.enable_thinking)
        if config.deterministic:
            raise ConfigError(
                f"deterministic=true, env.max_turns={config.env.max_turns}: environment {name} may take several turns, "
                f"which have no fixed order; allowed: deterministic=false, or env.max_turns=1"
            )


class Attempts:
    """Plays any number of attempts side by side."""

    def __init__(self, config: RunConfig, tokenizer: ChatTokenizer, sampler: Sampler, envs: Fleet) -> None:
        self._config, self._tokenizer, self._sampler, self._envs = config, tokenizer, sampler, envs

    async def play(
        self, label: str, task: Task, request: GenerationRequest, header: RolloutHeader, rollout: Any
    ) -> Played:
        """Go on with a sample of `request` to its verdict. `label` tells batches and evaluations apart.

        When the tokens of earlier turns are lost with the node that held them, the attempt is sampled again from its
        first turn with the same seeds, at most `env.max_attempts` times in all.
        """
        reason = ""
        for number in range(self._config.env.max_attempts):
            if number:
                header, rollout = await self._first_turn(request, header.sample_index)
            name = f"{label}/{task.id}/{header.sample_index}/{number}"
            world = World(self._envs, self._config, name, task)
            try:
                played = await self._play(world, task, request, header, rollout)
                current().sampled(played.header)
                return played
            except RolloutLost as error:
                world.forget()
                reason = str(error)
                log.warning("%s; it is sampled again", reason)
        return Played(header=header, rollout=rollout, verdict=broken(reason))

    async def _play(
        self, world: World, task: Task, request: GenerationRequest, header: RolloutHeader, rollout: Any
    ) -> Played:
        history: History = ()
        ends_s = time.monotonic() + self._config.env.attempt_s
        while True:
            reply = Reply(text=header.reply, truncated=header.finish_reason is FinishReason.LENGTH)
            answer = await world.step(history, reply)
            if isinstance(answer, Verdict):
                return Played(header=header, rollout=rollout, verdict=answer)
            history = (*history, Exchange(reply=reply, observation=answer))
            found = await self._next_turn(task, request, header, rollout, answer, ends_s)
            if isinstance(found, str):
                return Played(header=header, rollout=rollout, verdict=await world.finish(history, found))
            header, rollout = found

    async def _next_turn(
        self,
        task: Task,
        request: GenerationRequest,
        header: RolloutHeader,
        rollout: Any,
        observation: Observation,
        ends_s: float,
    ) -> tuple[RolloutHeader, Any] | Ending:
        """The attempt with one more turn, or the bound that ends it before that turn."""
        if header.num_turns >= self._config.env.max_turns:
            return "turns"
        turn = self._turn(task, request, header, observation)
        if turn is None:
            return "tokens"
        try:
            async with asyncio.timeout(ends_s - time.monotonic()):
                return await self._sampler.extend(turn, rollout)
        except TimeoutError:
            return "time"

    def _turn(
        self, task: Task, request: GenerationRequest, header: RolloutHeader, observation: Observation
    ) -> TurnRequest | None:
        """None when the tokens are used up. An observation gets at most half of those that are left."""
        left = request.sampling.max_tokens - header.num_response_tokens
        if header.finish_reason is FinishReason.LENGTH:
            return None
        fitted = fit_turn(
            self._tokenizer,
            task.messages,
            observation.messages,
            left // 2,
            stop_id=header.last_token_id,
            enable_thinking=self._config.model.enable_thinking,
        )
        if fitted is None:
            return None
        observation_ids, shown = fitted
        first_seed = request.seeds[request.sample_indices.index(header.sample_index)]
        return TurnRequest(
            task_id=task.id,
            sample_index=header.sample_index,
            observation_ids=observation_ids,
            transcript=in_words(header.text, shown),
            seed=turn_seed(first_seed, header.num_turns),
            sampling=dataclasses.replace(request.sampling, max_tokens=left - len(observation_ids)),
            support_size=request.support_size,
        )

    async def _first_turn(self, request: GenerationRequest, sample_index: int) -> tuple[RolloutHeader, Any]:
        """Sample one of the request's attempts anew."""
        seed = request.seeds[request.sample_indices.index(sample_index)]
        alone = dataclasses.replace(request, sample_indices=(sample_index,), seeds=(seed,))
        found = [sample async for sample in self._sampler.sample(alone)]
        if len(found) != 1:
            raise InfrastructureError(f"task {request.task_id}: {len(found)} samples came for one")
        return found[0]

"""The two ends of an attempt without actors: a model whose turns a person wrote, and an environment in this process."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from env_workers.environment import Ending, Observation, Reply
from env_workers.sessions import History
from env_workers.worker import EnvWorker
from sdpo.types import FinishReason, GenerationRequest, RolloutHeader, Task, TurnRequest, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """Something that a model reads or writes; `length` is in tokens, or in characters without a tokenizer."""

    text: str
    length: int


class ScriptedSampler:
    """A `Sampler` that gives `answers`, one a turn, and has no further turn when they are used up."""

    def __init__(self, answers: Sequence[Text], stop_id: int | None) -> None:
        """`stop_id` is the token that ends each of the model's turns; None where there is none."""
        self._answers, self._stop_id = answers, -1 if stop_id is None else stop_id
        self.limits: list[int] = []
        """How long each turn that was taken may be, in the unit of `Text.length`."""
        self.is_over = False
        """Whether the environment waited for one more turn than there are answers."""

    def expect(self, task_ids: Sequence[str]) -> None:
        """Do nothing: requests do not wait for each other."""

    async def sample(self, request: GenerationRequest) -> AsyncIterator[tuple[RolloutHeader, Any]]:
        """Yield the first answer as the request's only sample."""
        header = RolloutHeader(
            task_id=request.task_id,
            sample_index=request.sample_indices[0],
            text="",
            reply="",
            num_prompt_tokens=len(request.prompt_ids),
            num_response_tokens=0,
            num_environment_tokens=0,
            num_turns=0,
            last_token_id=self._stop_id,
            finish_reason=FinishReason.STOP,
            versions=(),
        )
        yield self._next(header, "", 0, request.sampling.max_tokens)

    async def extend(self, turn: TurnRequest, previous: RolloutHeader) -> tuple[RolloutHeader, Any] | None:
        """Return the attempt with the next answer; `previous` is its header, which stands for its rollout."""
        self.is_over = previous.num_turns == len(self._answers)
        if self.is_over:
            return None
        return self._next(previous, turn.transcript, len(turn.observation_ids), turn.sampling.max_tokens)

    def _next(
        self, previous: RolloutHeader, transcript: str, num_observed: int, limit: int
    ) -> tuple[RolloutHeader, RolloutHeader]:
        answer = self._answers[previous.num_turns]
        self.limits.append(limit)
        header = replace(
            previous,
            text=transcript + answer.text,
            reply=answer.text,
            num_response_tokens=previous.num_response_tokens + num_observed + answer.length,
            num_environment_tokens=previous.num_environment_tokens + num_observed,
            num_turns=previous.num_turns + 1,
        )
        return header, header


class LocalSession:
    """An `EnvSession` on an env worker of this process. Keeps what the environment said, and what ended the attempt."""

    def __init__(self, worker: EnvWorker, name: str, task: Task) -> None:
        self._worker, self._name, self._task = worker, name, task
        self.observations: list[Observation] = []
        self.ending: Ending | None = None
        """The bound that ended the attempt; None where the environment gave its verdict by itself."""

    async def step(self, history: History, reply: Reply) -> Observation | Verdict:
        """Return what the environment says to the turn after `history`."""
        answer = await asyncio.to_thread(self._worker.step, self._name, self._task, history, reply)
        if isinstance(answer, Observation):
            self.observations.append(answer)
        return answer

    async def finish(self, history: History, ending: Ending) -> Verdict:
        """Return the verdict on the attempt as it is."""
        self.ending = ending
        return await asyncio.to_thread(self._worker.finish, self._name, self._task, history, ending)

    def forget(self) -> None:
        """Close the attempt's session."""
        self._worker.forget(self._name)

"""Client that runs one attempt on the env worker that holds its session, and on another one when that breaks."""

import asyncio
from typing import Any

from env_workers.environment import Ending, Exchange, Observation, Reply
from orchestrator.actors.fleet import ACTOR_FAILURES, Fleet
from orchestrator.telemetry.deadlines import with_deadline
from sdpo.config import RunConfig
from sdpo.types import Task, Verdict

History = tuple[Exchange, ...]


class EnvClient:
    """The environment of one attempt at `task`.

    `attempt` names the session: no other attempt that is under way has this name. `batch_index` is that of the batch
    which trains on the attempt, None for an evaluation; env workers name it in their logs.

    When a container, runner or worker breaks, the call is made again elsewhere after a pause that doubles. After
    `env.max_attempts` the answer is a verdict that carries `infrastructure_error`, and the caller drops the attempt.
    """

    def __init__(self, fleet: Fleet, config: RunConfig, attempt: str, batch_index: int | None, task: Task) -> None:
        self._fleet, self._config = fleet, config
        self._attempt, self._batch_index, self._task = attempt, batch_index, task
        self._holder: Any = None

    async def step(self, history: History, reply: Reply) -> Observation | Verdict:
        """Return what the environment says to the turn after `history`."""
        return await self._ask("step", history, reply)

    async def finish(self, history: History, ending: Ending) -> Verdict:
        """Return the verdict on an attempt that ends after the last observation of `history`."""
        verdict = await self._ask("finish", history, ending)
        assert isinstance(verdict, Verdict)
        return verdict

    def forget(self) -> None:
        """Have the attempt's session closed, because the attempt is not played on. Does not wait for it."""
        if self._holder is not None:
            self._holder.forget.remote(self._attempt)
            self._fleet.end_session(self._attempt)

    async def _ask(self, method: str, history: History, said: Reply | Ending) -> Observation | Verdict:
        env, avoid, answer = self._config.env, None, broken("never tried")
        timeout_s = self._config.deadlines.environment_s * (1 + len(history))  # another worker plays all of it again
        for number in range(env.max_attempts):
            if number:
                await asyncio.sleep(env.retry_backoff_s * 2 ** (number - 1))
            async with self._fleet.checkout(avoid=avoid, prefer=self._holder) as member:
                avoid = handle = member.handle
                self._holder = None
                member.sessions.discard(self._attempt)
                try:
                    wait = getattr(handle, method).remote(self._attempt, self._task, history, said, self._batch_index)
                    answer = await with_deadline(wait, actor=member.name, stage=method, timeout_s=timeout_s)
                    if isinstance(answer, Verdict) and answer.infrastructure_error is not None:
                        self._fleet.suspect(member, handle, answer.infrastructure_error)
                except ACTOR_FAILURES as error:
                    self._fleet.report(member, handle, error)
                    answer = broken(str(error).splitlines()[0])
                if isinstance(answer, Observation) and member.handle is handle:
                    member.sessions.add(self._attempt)
            if isinstance(answer, Observation):
                self._holder = handle
                return answer
            if answer.infrastructure_error is None:
                return answer
        return answer


def broken(reason: str) -> Verdict:
    """Return the verdict on an attempt that infrastructure lost."""
    return Verdict(reward=None, success=False, kind="infrastructure_error", infrastructure_error=reason)

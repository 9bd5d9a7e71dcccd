"""One attempt's line to the env workers: to the one that holds its session, to another one when that breaks."""

import asyncio
from typing import Any

from env_workers.environment import Ending, Exchange, Observation, Reply
from orchestrator.fleet import ACTOR_FAILURES, Fleet
from orchestrator.waits import within
from sdpo.config import RunConfig
from sdpo.types import Task, Verdict

History = tuple[Exchange, ...]


class World:
    """`attempt` names the session: no other attempt that is under way has this name.

    A broken container, runner or worker is tried again elsewhere, after a pause that doubles; after `env.max_attempts`
    the answer is a verdict that carries `infrastructure_error`, and the caller drops and counts the attempt.
    """

    def __init__(self, fleet: Fleet, config: RunConfig, attempt: str, task: Task) -> None:
        self._fleet, self._config, self._attempt, self._task = fleet, config, attempt, task
        self._holder: Any = None

    async def step(self, history: History, reply: Reply) -> Observation | Verdict:
        """What the environment says to the turn after `history`."""
        return await self._ask("step", history, reply)

    async def finish(self, history: History, ending: Ending) -> Verdict:
        """The verdict on an attempt that ends after the last observation of `history`."""
        verdict = await self._ask("finish", history, ending)
        assert isinstance(verdict, Verdict)
        return verdict

    def forget(self) -> None:
        """The attempt is not played on: its session may go. Does not wait for it."""
        if self._holder is not None:
            self._holder.forget.remote(self._attempt)
            self._fleet.end_session(self._attempt)

    async def _ask(self, method: str, history: History, said: Reply | Ending) -> Observation | Verdict:
        env, avoid, answer = self._config.env, None, broken("never tried")
        timeout_s = self._config.deadlines.environment_s * (1 + len(history))  # another worker plays all of it again
        for number in range(env.max_attempts):
            if number:
                await asyncio.sleep(env.retry_backoff_s * 2 ** (number - 1))
            async with self._fleet.lease(avoid=avoid, prefer=self._holder) as member:
                avoid = handle = member.handle
                self._holder = None
                member.sessions.discard(self._attempt)
                try:
                    wait = getattr(handle, method).remote(self._attempt, self._task, history, said)
                    answer = await within(wait, actor=member.name, stage=method, timeout_s=timeout_s)
                    if isinstance(answer, Verdict) and answer.infrastructure_error is not None:
                        self._fleet.doubt(member, handle, answer.infrastructure_error)
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
    """A verdict that is none: infrastructure failed."""
    return Verdict(reward=None, success=False, kind="infrastructure_error", infrastructure_error=reason)

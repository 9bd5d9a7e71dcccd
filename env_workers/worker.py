"""The env worker: answers attempts side by side, with warm sandboxes. A plain class; Ray makes an actor of it."""

import logging
import os
import time
from collections.abc import Callable
from dataclasses import replace
from threading import Lock
from typing import Any

from env_workers import feedback_policy
from env_workers.answers import checked, of_environment
from env_workers.code.feedback import VIOLATION
from env_workers.environment import (
    Context,
    Ending,
    Environment,
    Exchange,
    Observation,
    Reply,
    SandboxViolation,
    Session,
    load_environment,
)
from env_workers.sandbox.pool import SandboxPool, execution_deadline_s
from env_workers.sessions import History, Sessions, close
from env_workers.travel import Luggage, discard, unpack
from sdpo.config import EnvConfig
from sdpo.doing import Doing
from sdpo.errors import InfrastructureError, SandboxUnavailable
from sdpo.log_line import step_of
from sdpo.logs import set_up_logging
from sdpo.memory import resident_bytes
from sdpo.stacks import answer_stack_requests
from sdpo.types import Task, Verdict

log = logging.getLogger(__name__)

MAX_OPEN_SESSIONS = 256
"""Attempts in several turns that wait for their next turn at one worker; an older one is played again."""


def max_concurrency(config: EnvConfig) -> int:
    """Threads of the actor: one for each sandbox, and one that answers health checks."""
    return config.sandboxes_per_worker + 1


def judge_deadline_s(config: EnvConfig) -> float:
    """The longest that an environment's answer to one turn can take where it executes one program. A call with a
    history may have to play all of its turns."""
    return execution_deadline_s(config)


class EnvWorker:
    """`name` is the actor's name, `owner` marks the run that the sandboxes belong to, `luggage` brings its own code.

    The constructor starts no sandbox; call `ready` first. Any number of threads may call it.
    """

    def __init__(self, config: EnvConfig, name: str, owner: str = "", luggage: Luggage = Luggage()) -> None:  # noqa: B008
        import ray  # only where a worker is made

        from env_workers.metrics import EnvMetrics

        answer_stack_requests()
        set_up_logging(ray.get_runtime_context().get_actor_name() if ray.is_initialized() else None)
        if ray.is_initialized() and not ray.get_gpu_ids():
            os.environ["CUDA_VISIBLE_DEVICES"] = ""  # who asks Ray for no GPU sees all of the node's
        self._config, self._name, self._owner = config, name, owner
        self._doing = Doing(log)
        self._unpacked = unpack(luggage)
        self._sandboxes = SandboxPool(config, owner, name)
        self._sessions = Sessions(self._open, config.attempt_s, MAX_OPEN_SESSIONS, time.monotonic)
        self._metrics = EnvMetrics(owner, name)
        self._environments: dict[str, Environment] = {}
        self._making = Lock()

    def __repr__(self) -> str:
        """`env-3 judging 4`; the name alone while it is idle: Ray's logs and lists keep what it is at first."""
        doing = str(self._doing)
        return self._name if doing == "idle" else f"{self._name} {doing}"

    def ready(self) -> dict[str, Any]:
        """Starts a sandbox, runs the canary in it; facts and counts.

        Raises SandboxUnavailable where the sandbox cannot work on this machine, InfrastructureError when it broke.
        """
        check_s = self._sandboxes.check()
        self._sessions.sweep()
        return {
            "name": self._name,
            "owner": self._owner,
            "pid": os.getpid(),
            "sandbox": self._sandboxes.facts,
            "check_s": check_s,
            "open_sessions": len(self._sessions),
            "replayed_sessions": self._sessions.num_replayed,
            **self._sandboxes.counters,
            **self._metrics.counts,
        }

    def counts(self) -> dict[str, int]:
        """Events since the start: see `EnvMetrics.counts`. Starts nothing."""
        return self._metrics.counts

    def memory(self) -> dict[str, int]:
        """Resident `bytes` of this process and those under it; containers of a Docker engine are not."""
        return {"bytes": resident_bytes()}

    def step(self, attempt: str, task: Task, history: History, reply: Reply) -> Observation | Verdict:
        """The world's answer to the model's turn after `history`; a verdict's `details.judge_s` is what it took.

        `attempt` names the session: calls of one attempt come one after the other. A broken sandbox is a verdict
        without a reward, never an exception. Raises UserError for a bad payload or environment, EnvironmentFault for
        an environment of the user's own that fails.
        """

        def answer(session: Session) -> Observation | Verdict:
            with of_environment(task, "step"):
                said = session.step(reply)
            said = checked(task, said, self._environment(task.environment).observation_role, "step")
            if isinstance(said, Observation):
                self._sessions.keep(attempt, session, (*history, Exchange(reply=reply, observation=said)))
            return said

        return self._timed(attempt, task, lambda: self._with_session(attempt, task, history, answer))

    def finish(self, attempt: str, task: Task, history: History, ending: Ending) -> Verdict:
        """The verdict on an attempt that reached one of its bounds after the last observation of `history`.

        Raises as `step`.
        """

        def answer(session: Session) -> Observation | Verdict:
            with of_environment(task, "end"):
                said = session.end(ending)
            return checked(task, said, None, "end")

        verdict = self._timed(attempt, task, lambda: self._with_session(attempt, task, history, answer))
        assert isinstance(verdict, Verdict)
        return verdict

    def forget(self, attempt: str) -> None:
        """Nobody will ask for this attempt again."""
        self._sessions.forget(attempt)

    def close(self) -> None:
        """Ends every session, every sandbox and every process in them."""
        self._sessions.sweep(everything=True)
        self._sandboxes.close()
        discard(self._unpacked)

    def _with_session(
        self, attempt: str, task: Task, history: History, use: Callable[[Session], Observation | Verdict]
    ) -> Observation | Verdict:
        """`use` keeps the session exactly when it gives an observation."""
        session = self._sessions.take(attempt, task, history)
        said: Observation | Verdict | None = None
        try:
            said = use(session)
            return said
        finally:
            if not isinstance(said, Observation):
                close(session)

    def _timed(self, attempt: str, task: Task, ask: Callable[[], Observation | Verdict]) -> Observation | Verdict:
        with self._doing("judging", step=step_of(attempt), task=task.id) as results:
            answer = self._answered(ask)
            results.append("another turn" if isinstance(answer, Observation) else f"{answer.kind} {answer.reward}")
            return answer

    def _answered(self, ask: Callable[[], Observation | Verdict]) -> Observation | Verdict:
        begin = time.monotonic()
        try:
            answer = ask()
        except (InfrastructureError, SandboxUnavailable) as error:
            self._metrics.infrastructure_error(type(error).__name__)
            log.warning("%s: %s", type(error).__name__, error)
            answer = Verdict(reward=None, success=False, kind="infrastructure_error", infrastructure_error=str(error))
        except SandboxViolation as error:  # an environment that does not word it itself
            said = {"fault": str(error)}
            answer = Verdict(reward=0.0, success=False, kind="sandbox_violation", feedback=VIOLATION, details=said)
        judge_s = time.monotonic() - begin
        self._metrics.executed(judge_s)
        self._metrics.recycled(self._sandboxes.counters["sandboxes_thrown_away"])
        if isinstance(answer, Observation):
            return answer
        if answer.infrastructure_error is None:
            self._metrics.judged(answer.kind)
        answer = feedback_policy.apply(answer, self._config)
        return replace(answer, details={**answer.details, "judge_s": judge_s})

    def _open(self, task: Task) -> Session:
        return self._environment(task.environment).open(task)

    def _environment(self, name: str) -> Environment:
        with self._making:
            if name not in self._environments:
                context = Context(config=self._config, sandbox=self._sandboxes)
                self._environments[name] = load_environment(name, context)
            return self._environments[name]

"""The env worker: answers attempts side by side, with warm sandboxes. A plain class; Ray makes an actor of it."""

import logging
import os
import time
from collections.abc import Callable
from dataclasses import replace
from threading import Lock
from typing import Any

from env_workers import feedback_policy
from env_workers.answers import checked, of_environment, with_success
from env_workers.code.feedback import VIOLATION
from env_workers.code_bundle import CodeBundle, discard, unpack
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
from env_workers.sandbox.packages import Package, list_packages
from env_workers.sandbox.pool import SandboxPool
from env_workers.sessions import History, Sessions, close
from sdpo.activity import Activity
from sdpo.config import EnvConfig
from sdpo.errors import InfrastructureError, SandboxUnavailable
from sdpo.logs import set_up_logging
from sdpo.memory import resident_bytes
from sdpo.stacks import answer_stack_requests
from sdpo.types import Task, Verdict

log = logging.getLogger(__name__)

MAX_OPEN_SESSIONS = 256
"""Attempts in several turns that wait for their next turn at one worker; an older one is played again."""


def max_concurrency(config: EnvConfig) -> int:
    """Return the number of threads of the actor: one for each sandbox, and one that answers health checks."""
    return config.sandboxes_per_worker + 1


class EnvWorker:
    """Answers attempts at tasks: keeps their sessions and the sandboxes that their programs run in.

    `name` is the actor's name, `owner` the run of the sandboxes, `code_bundle` holds the user's modules. A verdict that
    leaves `success` out gets it from its reward and `success_threshold`. The constructor starts no sandbox; call
    `ready` first. Any number of threads may call it.
    """

    def __init__(
        self,
        config: EnvConfig,
        name: str,
        owner: str = "",
        code_bundle: CodeBundle = CodeBundle(),  # noqa: B008
        success_threshold: float = 0.5,
    ) -> None:
        import ray  # only where a worker is made

        from env_workers.metrics import EnvMetrics

        answer_stack_requests()
        set_up_logging(ray.get_runtime_context().get_actor_name() if ray.is_initialized() else None)
        if ray.is_initialized() and not ray.get_gpu_ids():
            os.environ["CUDA_VISIBLE_DEVICES"] = ""  # an actor without a GPU of its own would see all of the node's
        self._config, self._name, self._owner = config, name, owner
        self._success_threshold = success_threshold
        self._activity = Activity(log)
        self._unpacked = unpack(code_bundle)
        self._sandboxes = SandboxPool(config, owner, name)
        self._sessions = Sessions(self._open, config.attempt_s, MAX_OPEN_SESSIONS, time.monotonic)
        self._metrics = EnvMetrics(owner, name)
        self._environments: dict[str, Environment] = {}
        self._making = Lock()

    def __repr__(self) -> str:
        """Return `env-3 judging 4`, or the name alone while idle: Ray's logs and lists keep the first value."""
        activity = str(self._activity)
        return self._name if activity == "idle" else f"{self._name} {activity}"

    def ready(self) -> dict[str, Any]:
        """Start a sandbox and run the canary in it; return facts and counts.

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

    def packages(self) -> tuple[Package, ...]:
        """Return what programs may import beyond the standard library. Starts a sandbox; raises as `ready`."""
        self._sandboxes.check()
        return list_packages(self._sandboxes)

    def counts(self) -> dict[str, int]:
        """Return the events since the start: see `EnvMetrics.counts`. Starts nothing."""
        return self._metrics.counts

    def memory(self) -> dict[str, int]:
        """Return the resident `bytes` of this process and its descendants, without containers of a Docker engine."""
        return {"bytes": resident_bytes()}

    def step(
        self, attempt: str, task: Task, history: History, reply: Reply, batch_index: int | None = None
    ) -> Observation | Verdict:
        """Return the answer to the model's turn after `history`; a verdict's `details.judge_s` is what it took.

        `attempt` names the session: calls of one attempt come one after the other. `batch_index` is that of the batch
        which trains on the attempt, for logs; None for an evaluation. A broken sandbox is a verdict without a reward,
        never an exception. Raises UserError for a bad payload or environment, EnvironmentFault for an environment of
        the user's own that fails.
        """

        def answer(session: Session) -> Observation | Verdict:
            with of_environment(task, "step"):
                result = session.step(reply)
            result = checked(task, result, self._environment(task.environment).observation_role, "step")
            if isinstance(result, Observation):
                self._sessions.keep(attempt, session, (*history, Exchange(reply=reply, observation=result)))
            return result

        return self._timed(batch_index, task, lambda: self._with_session(attempt, task, history, answer))

    def finish(
        self, attempt: str, task: Task, history: History, ending: Ending, batch_index: int | None = None
    ) -> Verdict:
        """Return the verdict on an attempt that reached one of its bounds after the last observation of `history`.

        Raises as `step`.
        """

        def answer(session: Session) -> Observation | Verdict:
            with of_environment(task, "end"):
                result = session.end(ending)
            return checked(task, result, None, "end")

        verdict = self._timed(batch_index, task, lambda: self._with_session(attempt, task, history, answer))
        assert isinstance(verdict, Verdict)
        return verdict

    def forget(self, attempt: str) -> None:
        """Close the attempt's session: no call about this attempt follows."""
        self._sessions.forget(attempt)

    def close(self) -> None:
        """End every session, every sandbox and every process in them."""
        self._sessions.sweep(everything=True)
        self._sandboxes.close()
        discard(self._unpacked)

    def _with_session(
        self, attempt: str, task: Task, history: History, use: Callable[[Session], Observation | Verdict]
    ) -> Observation | Verdict:
        """Call `use`, which keeps the session exactly when it gives an observation; otherwise close the session."""
        session = self._sessions.take(attempt, task, history)
        result: Observation | Verdict | None = None
        try:
            result = use(session)
            return result
        finally:
            if not isinstance(result, Observation):
                close(session)

    def _timed(
        self, batch_index: int | None, task: Task, ask: Callable[[], Observation | Verdict]
    ) -> Observation | Verdict:
        step = None if batch_index is None else batch_index + 1
        with self._activity("judging", step=step, task=task.id) as results:
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
        except SandboxViolation as error:  # an environment that does not make a verdict of it
            details = {"fault": str(error)}
            answer = Verdict(reward=0.0, success=False, kind="sandbox_violation", feedback=VIOLATION, details=details)
        judge_s = time.monotonic() - begin
        self._metrics.executed(judge_s)
        self._metrics.recycled(self._sandboxes.counters["sandboxes_discarded"])
        if isinstance(answer, Observation):
            return answer
        if answer.infrastructure_error is None:
            self._metrics.judged(answer.kind)
        answer = feedback_policy.apply(with_success(answer, self._success_threshold), self._config)
        return replace(answer, details={**answer.details, "judge_s": judge_s})

    def _open(self, task: Task) -> Session:
        return self._environment(task.environment).open(task)

    def _environment(self, name: str) -> Environment:
        with self._making:
            if name not in self._environments:
                context = Context(config=self._config, sandbox=self._sandboxes)
                self._environments[name] = load_environment(name, context)
            return self._environments[name]

"""The env worker: judges replies, one at a time, in a sandbox of its own. A plain class; Ray makes an actor of it."""

import os
import time
from dataclasses import replace
from typing import Any

from env_workers.environment import Context, Environment, Observation, Reply, load_environment
from env_workers.sandbox.bubblewrap import CLOSE_TIMEOUT_S, GRACE_S, START_TIMEOUT_S, Bubblewrap
from env_workers.sandbox.lease import FAULTS_TO_BLAME, SandboxLease
from env_workers.sandbox.protocol import Sandbox
from sdpo.config import EnvConfig
from sdpo.errors import ConfigError, InfrastructureError, SandboxUnavailable
from sdpo.stacks import answer_stack_requests
from sdpo.types import Task, Verdict


def judge_deadline_s(config: EnvConfig) -> float:
    """The longest that one `EnvWorker.judge` can take: three executions, each with a sandbox start and a canary."""
    one = START_TIMEOUT_S + CLOSE_TIMEOUT_S + 2 * (config.sandbox.wall_time_s + 2 * GRACE_S)
    return (FAULTS_TO_BLAME + 1) * one


class EnvWorker:
    """`name` is the actor's name, `owner` marks the run that the sandbox's processes belong to.

    The constructor starts nothing; call `ready` first. Not thread-safe: one call at a time.
    """

    def __init__(self, config: EnvConfig, name: str, owner: str = "") -> None:
        answer_stack_requests()
        self._config, self._name, self._owner = config, name, owner
        self._lease = SandboxLease(self._make_sandbox)
        self._environments: dict[str, Environment] = {}
        self._num_judged = self._num_infrastructure_errors = 0

    def ready(self) -> dict[str, Any]:
        """Starts the sandbox, runs the canary in it; facts and counts.

        Raises SandboxUnavailable where the sandbox cannot work on this machine, InfrastructureError when it broke.
        """
        check_s = self._lease.check()
        return {
            "name": self._name,
            "owner": self._owner,
            "pid": os.getpid(),
            "sandbox": self._lease.facts,
            "check_s": check_s,
            "judged": self._num_judged,
            "infrastructure_errors": self._num_infrastructure_errors,
            "sandboxes_started": self._lease.num_started,
        }

    def judge(self, task: Task, response: str, truncated: bool) -> Verdict:
        """The verdict on a single-turn attempt; `details.judge_s` is what it took.

        A broken sandbox is a verdict without a reward, never an exception. Raises TaskFileError for a bad payload.
        """
        begin = time.monotonic()
        self._num_judged += 1
        try:
            verdict = self._judge(task, Reply(text=response, truncated=truncated))
        except (InfrastructureError, SandboxUnavailable) as error:
            self._lease.close()
            self._num_infrastructure_errors += 1
            verdict = Verdict(reward=None, success=False, kind="infrastructure_error", infrastructure_error=str(error))
        return replace(verdict, details={**verdict.details, "judge_s": time.monotonic() - begin})

    def close(self) -> None:
        """Ends the sandbox and every process in it."""
        self._lease.close()

    def _judge(self, task: Task, reply: Reply) -> Verdict:
        session = self._environment(task.environment).open(task)
        try:
            answer = session.step(reply)
        finally:
            session.close()
        if isinstance(answer, Observation):
            raise ConfigError(f"environment {task.environment!r} wants more turns; this worker judges one reply")
        return answer

    def _environment(self, name: str) -> Environment:
        if name not in self._environments:
            self._environments[name] = load_environment(name, Context(config=self._config, sandbox=self._lease))
        return self._environments[name]

    def _make_sandbox(self) -> Sandbox:
        return Bubblewrap(self._config.sandbox, owner=self._owner)

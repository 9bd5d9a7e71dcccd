"""One lease behind a lock."""

from threading import Lock
from typing import Any

from env_workers.environment import AssertProgram
from env_workers.sandbox.bubblewrap import Bubblewrap
from env_workers.sandbox.lease import SandboxLease
from sdpo.config import EnvConfig


class SandboxPool:
    def __init__(self, config: EnvConfig, owner: str, worker: str) -> None:
        self._lease = SandboxLease(lambda: Bubblewrap(config.sandbox, owner=owner))
        self._lock = Lock()

    def execute(self, source: Any, calls: Any, time_limit_s: float, **options: Any) -> Any:
        with self._lock:
            return self._lease.execute(source, calls, time_limit_s, **options)

    def judge_asserts(self, source: str, test: AssertProgram, time_limit_s: float) -> Any:
        raise NotImplementedError

    def check(self) -> float:
        with self._lock:
            return self._lease.check()

    def close(self) -> None:
        self._lease.close()

    @property
    def facts(self) -> dict[str, Any]:
        return self._lease.facts

    @property
    def counters(self) -> dict[str, Any]:
        return {"sandboxes_started": self._lease.num_started}

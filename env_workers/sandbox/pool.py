"""The warm sandboxes of one env worker, for any number of threads."""

import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from env_workers.environment import AssertProgram
from env_workers.sandbox import asserts
from env_workers.sandbox.base import GRACE_S, Sandbox
from env_workers.sandbox.bubblewrap import Bubblewrap
from env_workers.sandbox.renewable import FAULTS_TO_BLAME, RenewableSandbox
from sdpo.config import BubblewrapSandbox, EnvConfig
from sdpo.errors import InfrastructureError

if TYPE_CHECKING:
    from env_workers.sandbox.janitor import Janitor

START_TIMEOUT_S = 35.0
"""The longest that any kind of sandbox takes to start or to fail at it."""
CLOSE_TIMEOUT_S = 5.0
"""The longest that any kind of sandbox takes to be closed."""
SHORTEST_SLOT_TIMEOUT_S = 20.0


def slot_timeout_s(config: EnvConfig) -> float:
    """Return how long a call waits for a free slot: at least as long as a healthy execution before it can take."""
    return max(SHORTEST_SLOT_TIMEOUT_S, 2 * (config.sandbox.wall_time_s + 2 * GRACE_S))


def execution_deadline_s(config: EnvConfig) -> float:
    """Return the longest that one call of a pool's `execute` or `judge_asserts` takes, in seconds.

    Each may go three or more rounds (see `env_workers.sandbox.renewable`), every one with fresh sandboxes and their
    canaries; `judge_asserts` begins no other round after the time that one can take.
    """
    return slot_timeout_s(config) + max((FAULTS_TO_BLAME + 1) * _round_s(config, 1), 2 * _round_s(config, 2))


def _round_s(config: EnvConfig, num_sandboxes: int) -> float:
    limit_s = config.sandbox.wall_time_s + 2 * GRACE_S
    asserts_s = asserts.ASSERTS_STEP_S if num_sandboxes == 2 else 0.0
    return num_sandboxes * (CLOSE_TIMEOUT_S + START_TIMEOUT_S + limit_s) + limit_s + asserts_s


def make_sandbox(config: EnvConfig, owner: str, worker: str) -> Sandbox:
    """Return a sandbox of the configured kind, not started. `owner` and `worker` name its owner."""
    if isinstance(config.sandbox, BubblewrapSandbox):
        return Bubblewrap(config.sandbox, owner=owner)
    from env_workers.sandbox.docker import DockerContainer  # its package is needed only for this kind

    return DockerContainer(config.sandbox, owner=owner, worker=worker)


def _make_janitor(config: EnvConfig) -> "Janitor | None":
    if isinstance(config.sandbox, BubblewrapSandbox):
        return None  # its processes die with their worker
    from env_workers.sandbox.janitor import Janitor

    return Janitor(config.sandbox)


@dataclass(slots=True)
class _Slot:
    """What one execution uses: a sandbox for programs and, once asserts were judged, another one for asserts."""

    programs: RenewableSandbox
    asserts: RenewableSandbox
    num_executions: int = 0
    execution_s: float = 0.0


class SandboxPool:
    """An `Executor` with `config.sandboxes_per_worker` slots. Nothing is started before it is needed."""

    def __init__(
        self, config: EnvConfig, owner: str, worker: str, make: Callable[[EnvConfig, str, str], Sandbox] = make_sandbox
    ) -> None:
        self._config = config
        self._make = lambda: make(config, owner, worker)
        # A sandbox dies with the thread that started it (bubblewrap): these live as long as the pool.
        self._starters = ThreadPoolExecutor(config.sandboxes_per_worker, thread_name_prefix="sandbox-starter")
        self._slots = [self._new_slot() for _ in range(config.sandboxes_per_worker)]
        self._free: queue.LifoQueue[_Slot] = queue.LifoQueue()
        for slot in self._slots:
            self._free.put(slot)
        self._closing = threading.Event()
        self._janitor = _make_janitor(config)

    def execute(
        self, source: str, calls: Sequence[Mapping[str, Any]], time_limit_s: float, *, shared: bool = False
    ) -> Any:
        """See `Executor.execute`. Waits for a free slot."""
        with self._slot() as slot:
            return slot.programs.execute(source, calls, time_limit_s, shared=shared)

    def judge_asserts(self, source: str, test: AssertProgram, time_limit_s: float) -> Any:
        """See `Executor.judge_asserts`. Waits for a free slot."""
        with self._slot() as slot:
            retry_until = time.monotonic() + _round_s(self._config, 2)
            limits = {"call_s": time_limit_s, "wall_s": self._config.sandbox.wall_time_s, "retry_until": retry_until}
            return asserts.judge_asserts(slot.programs, slot.asserts, source, test, **limits)

    def check(self) -> float:
        """Start a sandbox if there is none and run the canary; return the seconds that took.

        Where every slot is in use it returns 0: the executions are the check. Raises SandboxUnavailable or
        InfrastructureError.
        """
        if self._janitor is not None:
            self._janitor.check()
        try:
            slot = self._free.get_nowait()
        except queue.Empty:
            return 0.0
        try:
            return slot.programs.check()
        finally:
            self._free.put(slot)

    def close(self) -> None:
        """End every sandbox; after CLOSE_TIMEOUT_S also those in use, whose executions raise InfrastructureError."""
        self._closing.set()
        deadline = time.monotonic() + CLOSE_TIMEOUT_S
        for _ in self._slots:
            with suppress(queue.Empty):
                self._free.get(timeout=max(0.0, deadline - time.monotonic()))
        if self._janitor is not None:
            self._janitor.close()
        for sandbox in self._sandboxes():
            sandbox.close()
        for slot in self._slots:
            self._free.put(slot)  # a thread that waits for one learns that the pool is closed
        self._starters.shutdown(wait=False, cancel_futures=True)

    @property
    def facts(self) -> dict[str, Any]:
        """What a sandbox reported when it started; empty before the first did."""
        return next((sandbox.facts for sandbox in self._sandboxes() if sandbox.facts), {})

    @property
    def counters(self) -> dict[str, Any]:
        """sandboxes_started, sandboxes_discarded (number by reason), executions, execution_s (seconds in slots)."""
        sandboxes = self._sandboxes()
        discarded = sum((sandbox.discarded for sandbox in sandboxes), Counter[str]())
        return {
            "sandboxes_started": sum(sandbox.num_started for sandbox in sandboxes),
            "sandboxes_discarded": dict(discarded),
            "executions": sum(slot.num_executions for slot in self._slots),
            "execution_s": sum(slot.execution_s for slot in self._slots),
        }

    def _new_slot(self) -> _Slot:
        return _Slot(RenewableSandbox(self._make, self._start), RenewableSandbox(self._make, self._start))

    def _sandboxes(self) -> list[RenewableSandbox]:
        return [sandbox for slot in self._slots for sandbox in (slot.programs, slot.asserts)]

    @contextmanager
    def _slot(self) -> Iterator[_Slot]:
        try:
            slot = self._free.get(timeout=slot_timeout_s(self._config))
        except queue.Empty:
            raise InfrastructureError("no sandbox of this env worker became free in time") from None
        begin = time.monotonic()
        try:
            if self._janitor is not None:
                self._janitor.check()
            if self._closing.is_set():
                raise InfrastructureError("the env worker is closing")
            yield slot
        finally:
            slot.num_executions += 1
            slot.execution_s += time.monotonic() - begin
            self._free.put(slot)

    def _start(self, sandbox: Sandbox) -> Mapping[str, Any]:
        if self._closing.is_set():
            raise InfrastructureError("the env worker is closing")
        starting = self._starters.submit(sandbox.start)
        try:
            return starting.result(START_TIMEOUT_S)
        except FutureTimeout:
            starting.add_done_callback(lambda _: sandbox.close())
            raise InfrastructureError(f"the sandbox did not start within {START_TIMEOUT_S:g} s") from None

"""The env pool with real actors: it grows while attempts wait, shrinks, drains, and replaces members that die."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.exceptions import RayActorError

from env_workers.environment import Reply
from orchestrator.actors.env_client import EnvClient
from orchestrator.actors.env_pool import EnvPool
from orchestrator.actors.fleet import Member
from orchestrator.cluster.reservation import ActorSlot
from sdpo.config import EnvConfig, EnvPlacement, RunConfig
from sdpo.errors import SandboxUnavailable
from sdpo.types import Task, Verdict
from tests.fixtures.fleets import supervised

pytestmark = pytest.mark.usefixtures("ray_cluster")
QUICK = EnvConfig(target_wait_s=0.2, idle_s=1.0)


class Worker:
    """Works for a given time and counts its calls. Its sandbox works unless the file `away` exists."""

    def __init__(self, away: Path = Path("nowhere")) -> None:
        self._worked, self._away = 0, away

    def ready(self) -> int:
        if self._away.exists():
            raise SandboxUnavailable("the engine is away")
        return os.getpid()

    def step(self, attempt: str, task: Task, history: Any, reply: Any, batch_index: int | None) -> Verdict:
        time.sleep(0.1)
        if self._away.exists():
            return Verdict(reward=None, success=False, kind="infrastructure_error", infrastructure_error="engine away")
        return Verdict(reward=1.0, success=True, kind="passed")

    def work(self, seconds: float) -> int:
        time.sleep(seconds)
        self._worked += 1
        return os.getpid()

    def counts(self) -> dict[str, int]:
        return {"recycled": self._worked}

    def close(self) -> None:
        pass


def spawn(name: str, slot: ActorSlot) -> Any:
    return ray.remote(Worker).options(max_concurrency=4, **slot.options).remote()


async def ready(member: Member) -> None:
    await asyncio.wait_for(member.handle.ready.remote(), 60)


@asynccontextmanager
async def opened(
    config: EnvConfig, placement: EnvPlacement, spawn: Any = spawn, max_restarts: int = 2
) -> AsyncIterator[EnvPool]:
    async with asyncio.TaskGroup() as background:
        supervision = supervised(background, max_restarts=max_restarts, checkout_timeout_s=60.0)
        pool = EnvPool(config, placement, "pool-tests-1", spawn=spawn, prepare=ready, supervision=supervision)
        try:
            await pool.start()
            yield pool
        finally:
            pool.kill()


async def work(pool: EnvPool, seconds: float, prefer: Any = None) -> int:
    async with pool.checkout(prefer=prefer) as member:
        pid: int = await member.handle.work.remote(seconds)
        return pid


@asynccontextmanager
async def flood(pool: EnvPool, width: int) -> AsyncIterator[list[int]]:
    """`width` attempts at any time; yields a list of who judged them, which grows."""
    judged_by, stopped = list[int](), asyncio.Event()

    async def go_on() -> None:
        while not stopped.is_set():
            judged_by.append(await work(pool, 0.2))

    async with asyncio.TaskGroup() as group:
        for _ in range(width):
            group.create_task(go_on())
        yield judged_by
        stopped.set()


async def until(condition: Callable[[], bool], timeout_s: float = 60.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


def test_grows_while_attempts_wait_and_shrinks_when_idle() -> None:
    async def scenario() -> None:
        async with opened(QUICK, EnvPlacement(min_workers=1, max_workers=3)) as pool:
            assert pool.states == {"serving": 1, "pending": 0, "draining": 0}
            async with flood(pool, 12) as judged_by:
                await until(lambda: len(set(judged_by)) == 3)
                assert pool.states == {"serving": 3, "pending": 0, "draining": 0}
            figures = await pool.figures()
            assert figures["time/env_pool_size"] == 3
            assert figures["time/sandboxes_recycled"] == len(judged_by)
            assert figures["time/env_longest_wait_s"] > 0.2
            assert 0 < figures["time/env_wait_s"] < figures["time/env_longest_wait_s"]
            await until(lambda: pool.states == {"serving": 1, "pending": 0, "draining": 0})
            await until(lambda: ray.available_resources()["CPU"] == ray.cluster_resources()["CPU"] - 0.25)
            await work(pool, 0.0)

    asyncio.run(scenario())


def test_workers_without_resources_delay_no_other(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One fits in the cluster; those that wait for a node are named, and removed when they are not needed any more."""
    monkeypatch.setattr("orchestrator.actors.env_pool.PENDING_WARNING_S", 0.5)

    async def scenario() -> None:
        async with opened(QUICK, EnvPlacement(min_workers=1, max_workers=3, env_slots=3)) as pool:
            jobs = [asyncio.create_task(work(pool, 0.5)) for _ in range(8)]
            await until(lambda: pool.states["pending"] == 2)
            assert len(set(await asyncio.gather(*jobs))) == 1
            await until(lambda: pool.states == {"serving": 1, "pending": 0, "draining": 0})
            await until(lambda: ray.available_resources()["env_slot"] == 1)

    asyncio.run(scenario())
    warnings = [record.message for record in caplog.records if record.name == "orchestrator.actors.env_pool"]
    assert warnings == ["waiting for a node with 0.25 CPU and 3 env_slot free: env-1, env-2"]


@pytest.mark.parametrize("ends", ["with its sessions", "in time"])
def test_a_draining_worker_takes_no_new_attempt_and_keeps_its_sessions(
    ends: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with opened(QUICK, EnvPlacement(min_workers=1, max_workers=2)) as pool:
            async with flood(pool, 6):
                await until(lambda: pool.states["serving"] == 2)
                for member in pool.members:
                    member.sessions.add("an attempt")
            await until(lambda: pool.states["draining"] == 1)
            leaving, staying = sorted(pool.members, key=lambda m: m.serving)
            pids = [await member.handle.ready.remote() for member in (leaving, staying)]
            assert await work(pool, 0.0) == pids[1]
            assert await work(pool, 0.0, prefer=leaving.handle) == pids[0]
            await asyncio.sleep(0.3)
            assert leaving in pool.members
            if ends == "with its sessions":
                leaving.sessions.clear()
            else:
                monkeypatch.setattr("orchestrator.actors.env_pool.DRAIN_S", 0.0)
            await until(lambda: pool.members == [staying])
            assert await work(pool, 0.0, prefer=leaving.handle) == pids[1]

    asyncio.run(scenario())


def test_attempts_of_a_killed_worker_run_again_and_none_is_lost() -> None:
    async def scenario() -> None:
        async with opened(QUICK, EnvPlacement(min_workers=2, max_workers=2)) as pool:
            runs = dict.fromkeys(range(12), 0)

            async def attempt(number: int) -> None:
                while True:
                    async with pool.checkout() as member:
                        handle = member.handle
                        try:
                            await handle.work.remote(0.3)
                            runs[number] += 1
                            return
                        except RayActorError as error:
                            pool.report(member, handle, error)

            victim = await pool.members[0].handle.ready.remote()
            jobs = [asyncio.create_task(attempt(number)) for number in runs]
            await asyncio.sleep(0.2)
            os.kill(victim, signal.SIGKILL)
            await asyncio.gather(*jobs)
            assert set(runs.values()) == {1}
            await until(lambda: pool.states["serving"] == 2)
            assert [m.restarts for m in pool.members] == [1, 0]

    asyncio.run(scenario())


def test_attempts_wait_for_an_engine_that_is_started_again(tmp_path: Path) -> None:
    """It is away for longer than all tries of an attempt take; the pool grows meanwhile."""
    away, config = tmp_path / "away", QUICK.model_copy(update={"retry_backoff_s": 0.05})
    placement = EnvPlacement(min_workers=2, max_workers=3)

    def spawn_on_engine(name: str, slot: ActorSlot) -> Any:
        return ray.remote(Worker).options(max_concurrency=4, **slot.options).remote(away)

    async def scenario() -> None:
        async with opened(config, placement, spawn=spawn_on_engine, max_restarts=0) as pool:
            tasks = [Task(id=str(i), messages=(), environment="code", payload={}) for i in range(24)]
            worlds = [EnvClient(pool, RunConfig(env=config), task.id, None, task) for task in tasks]
            running = [asyncio.create_task(client.step((), Reply(text="", truncated=False))) for client in worlds]
            await asyncio.sleep(0.15)
            away.touch()
            await until(lambda: pool.states["serving"] == 0)
            await asyncio.sleep(2.0)
            assert pool.states == {"serving": 0, "pending": 3, "draining": 0}
            away.unlink()
            verdicts = await asyncio.wait_for(asyncio.gather(*running), 30)
            assert [verdict.kind for verdict in verdicts if isinstance(verdict, Verdict)] == ["passed"] * 24

    asyncio.run(scenario())

"""A real env pool on the cluster that Ray is connected to, and attempts on it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from env_workers.code_bundle import CodeBundle
from env_workers.environment import Reply
from orchestrator.actors.env_client import EnvClient
from orchestrator.actors.env_pool import EnvPool
from orchestrator.actors.fleet import Member
from orchestrator.actors.spawn import spawn_env
from sdpo.config import EnvConfig, EnvPlacement, RunConfig
from sdpo.types import Task, Verdict
from tests.fixtures.fleets import supervised

PROGRAM = "```python\nimport time\ndef f(x):\n    time.sleep(0.2)\n    return 2 * x\n```"


@asynccontextmanager
async def opened(config: EnvConfig, placement: EnvPlacement) -> AsyncIterator[EnvPool]:
    """Open a pool of real env workers, placed as in a run."""

    async def prepare(member: Member) -> None:
        await asyncio.wait_for(member.handle.ready.remote(), 60)

    async with asyncio.TaskGroup() as background:
        pool = EnvPool(
            config,
            placement,
            "a-run-1",
            spawn=partial(spawn_env, config, 0.5, CodeBundle(), "a-run-1"),
            prepare=prepare,
            supervision=supervised(background, max_restarts=0, checkout_timeout_s=60.0),
        )
        try:
            await pool.start()
            yield pool
        finally:
            pool.kill()


async def judged(pool: EnvPool, config: EnvConfig, count: int) -> list[Verdict]:
    """Return the verdicts on `count` attempts that run at the same time, in order."""

    async def one(number: int) -> Verdict:
        tests = [{"kind": "functional", "function": "f", "inputs": [number], "expected": 2 * number}]
        task = Task(id=str(number), messages=(), environment="code", payload={"tests": tests})
        answer = await EnvClient(pool, RunConfig(env=config), f"test/{number}", None, task).step(
            (), Reply(text=PROGRAM, truncated=False)
        )
        assert isinstance(answer, Verdict)
        return answer

    return list(await asyncio.gather(*(one(number) for number in range(count))))


async def until(condition: Callable[[], Any], timeout_s: float) -> None:
    """Raises TimeoutError."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.1)

"""A real env pool on whatever cluster Ray is connected to, and attempts on it that are counted."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from env_workers.environment import Reply
from env_workers.travel import Luggage
from orchestrator.env_pool import EnvPool
from orchestrator.fleet import Member
from orchestrator.placement import Placement
from orchestrator.world import World
from sdpo.config import EnvConfig, EnvPlacement, RunConfig
from sdpo.types import Task, Verdict

PROGRAM = "```python\nimport time\ndef f(x):\n    time.sleep(0.2)\n    return 2 * x\n```"


@asynccontextmanager
async def opened(config: EnvConfig, placement: EnvPlacement) -> AsyncIterator[EnvPool]:
    """Real env workers, placed as in a run."""

    async def prepare(member: Member) -> None:
        await asyncio.wait_for(member.handle.ready.remote(), 60)

    async with asyncio.TaskGroup() as background:
        pool = EnvPool(
            config,
            placement,
            "a-run-1",
            spawn=partial(Placement("a-run-1").spawn_env, config, Luggage()),
            prepare=prepare,
            max_restarts=0,
            lease_timeout_s=60.0,
            stacks=Path("unused"),
            background=background,
        )
        try:
            await pool.start()
            yield pool
        finally:
            pool.kill()


async def judged(pool: EnvPool, config: EnvConfig, count: int) -> list[Verdict]:
    """The verdicts on `count` attempts that run side by side, in order."""

    async def one(number: int) -> Verdict:
        tests = [{"kind": "functional", "function": "f", "inputs": [number], "expected": 2 * number}]
        task = Task(id=str(number), messages=(), environment="code", payload={"tests": tests})
        answer = await World(pool, RunConfig(env=config), f"test/{number}", task).step(
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

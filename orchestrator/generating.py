"""Sampling and judging without a learner: the fixed weights of `model.path`, on workers that are replaced when lost."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from env_workers.travel import Luggage, sweep
from orchestrator.failures import root_cause
from orchestrator.ray_session import ray_session
from orchestrator.stacks import dump_stacks
from orchestrator.workers import Workers
from sdpo.config import RunConfig
from sdpo.errors import StageTimeout


@asynccontextmanager
async def generating(config: RunConfig, luggage: Luggage, *, stacks: Path) -> AsyncIterator[Workers]:
    """A Ray session with rollout workers that hold `model.path` and an env pool; all of them end with the block.

    Every token is sampled as version "0.0". `stacks`: where stacks go when a deadline passes; made only then. Raises
    what broke beyond repair, also when that happened in the background.

    Example: `async with generating(config, sets.luggage, stacks=folder) as workers:
    Evaluator(config, tokenizer, workers.sampler, workers.envs)`
    """
    with ray_session(config, has_learner=False):
        try:
            async with asyncio.TaskGroup() as background:
                namespace = f"{config.name}-generate-{os.getpid()}"
                workers = Workers(config, namespace, luggage, stacks=stacks, background=background)
                try:
                    await workers.start_fleets()
                    yield workers
                finally:
                    workers.close()
        except BaseException as error:
            cause = root_cause(error)
            if isinstance(cause, StageTimeout):
                dump_stacks(stacks)
            if cause is error:
                raise
            raise cause from error
        finally:
            sweep()

"""A Ray session that samples and judges without a learner, with the fixed weights of `model.path`."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from env_workers.code_bundle import CodeBundle, sweep
from orchestrator.actors.sampling_actors import SamplingActors, start_fleets, supervision_of
from orchestrator.actors.spawn import MemberStarter
from orchestrator.cluster.namespace import run_namespace
from orchestrator.cluster.ray_session import ray_session
from orchestrator.failures import root_cause
from orchestrator.telemetry.stacks import dump_stacks
from sdpo.config import RunConfig
from sdpo.errors import StageTimeout


@asynccontextmanager
async def generating(config: RunConfig, code_bundle: CodeBundle, *, stacks: Path) -> AsyncIterator[SamplingActors]:
    """Open a Ray session with rollout workers that hold `model.path` and an env pool; all end with the block.

    Every token is sampled as version "0.0". `stacks`: folder for the stacks of actors when a deadline passes, created
    only then. Raises the error that ended the session, also one from the background.

    Example: `async with generating(config, sets.code_bundle, stacks=folder) as workers:
    await Attempts(config, tokenizer, workers.sampler, partial(EnvClient, workers.envs, config)).play_all(request)`
    """
    with ray_session(config, has_learner=False):
        try:
            async with asyncio.TaskGroup() as background:
                starter = MemberStarter(config, run_namespace(config.name, f"generate-{os.getpid()}"))
                workers = SamplingActors(starter, code_bundle, supervision_of(config, stacks, background))
                try:
                    await start_fleets(workers.fleets)
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

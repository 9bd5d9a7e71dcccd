"""The actors that sample and judge: rollout workers and env workers, supervised. They need no learner.

Without a learner the rollout workers keep the weights of `model.path`; in a run of training `RunActors` loads the
learner's into them.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from env_workers.code_bundle import CodeBundle
from orchestrator.actors.env_pool import EnvPool
from orchestrator.actors.fleet import Fleet, Member, Supervision
from orchestrator.actors.lockstep_sampler import make_sampler
from orchestrator.actors.spawn import MemberStarter, spawn_env
from rollout_workers.worker import RolloutActor
from sdpo.config import RunConfig
from sdpo.errors import InfrastructureError
from sdpo.types import Version


class SamplingActors:
    """The fleets `rollouts` and `envs`, both empty where nothing is sampled, and the `sampler` over the first."""

    def __init__(
        self,
        starter: MemberStarter,
        code_bundle: CodeBundle,
        supervision: Supervision,
        load_weights: Callable[[Member], Awaitable[None]] | None = None,
    ) -> None:
        """`load_weights(member)`: called for each rollout worker that has started, before it serves."""
        self._starter, self._load_weights = starter, load_weights
        config = starter.config
        threshold = config.hindsight.success_threshold
        self.rollouts = Fleet(
            "rollout",
            config.placement.rollout.workers if config.samples else 0,
            spawn=partial(starter.spawn, RolloutActor),
            prepare=self._prepare_rollout,
            max_load=config.rollout.max_num_seqs,
            supervision=supervision,
        )
        self.sampler = make_sampler(config, self.rollouts)
        prepare_env = partial(starter.start, method="ready")
        self.envs = (
            EnvPool(
                config.env,
                config.placement.env,
                starter.namespace,
                spawn=partial(spawn_env, config.env, threshold, code_bundle, starter.namespace),
                prepare=prepare_env,
                supervision=supervision,
            )
            if config.samples
            else Fleet("env", 0, spawn=_spawn_nothing, prepare=prepare_env, max_load=1, supervision=supervision)
        )

    @property
    def fleets(self) -> list[Fleet]:
        """Both fleets."""
        return [self.rollouts, self.envs]

    def close(self) -> None:
        """End every actor and release its resources."""
        for fleet in self.fleets:
            fleet.kill()
        self._starter.close()

    async def _prepare_rollout(self, member: Member) -> None:
        """Start an engine, which serves `model.path`."""
        await self._starter.start(member, "start", Version(incarnation=0, batch=0), self._starter.namespace)
        if self._load_weights is not None:
            await self._load_weights(member)


def supervision_of(config: RunConfig, stacks: Path, background: asyncio.TaskGroup) -> Supervision:
    """Return what the config says about replacements and deadlines. `stacks`: the folder for stacks."""
    return Supervision(
        max_restarts=config.max_worker_restarts,
        checkout_timeout_s=config.deadlines.start_s + config.deadlines.generate_s,
        stacks=stacks,
        background=background,
    )


def _spawn_nothing(name: str) -> Any:
    raise InfrastructureError(f"{name}: nothing is sampled in this run")


async def start_fleets(fleets: Iterable[Fleet]) -> None:
    """Start all fleets at once; raises the first failure."""
    async with asyncio.TaskGroup() as group:
        for fleet in fleets:
            group.create_task(fleet.start())

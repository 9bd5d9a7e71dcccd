"""Creating the actors of a run in Ray: their namespace, their resources, and the deadline for their start."""

from collections.abc import Callable
from typing import Any

import ray

from env_workers.code_bundle import CodeBundle
from orchestrator.actors.fleet import Member
from orchestrator.cluster.reservation import ActorSlot, MemberSlots, Reservation, index_of
from orchestrator.telemetry.deadlines import with_deadline
from sdpo.config import EnvConfig, RunConfig


def spawn(worker: Any, namespace: str, name: str, *arguments: Any, **options: Any) -> Any:
    """Create one actor. Ray does not restart it: the fleet that replaces it decides when the new one may serve."""
    return worker.options(name=name, namespace=namespace, max_restarts=0, **options).remote(*arguments)


def spawn_env(
    config: EnvConfig, success_threshold: float, code_bundle: CodeBundle, namespace: str, name: str, slot: ActorSlot
) -> Any:
    """Create an env worker on the resources of `slot`; `success_threshold` is that of `hindsight`."""
    from env_workers.worker import EnvWorker, max_concurrency  # imports the sandboxes: not where nothing is judged

    options = {"max_concurrency": max_concurrency(config), **slot.options}
    arguments = (config, name, namespace, code_bundle, success_threshold)
    return spawn(ray.remote(EnvWorker), namespace, name, *arguments, **options)


class MemberStarter:
    """Creates rollout workers and teachers in their slots, and starts members of all fleets within the deadline."""

    def __init__(
        self, config: RunConfig, namespace: str, shared: Callable[[int], tuple[Reservation, int]] | None = None
    ) -> None:
        """`shared(index)`: the reservation and bundle of a member, where both roles run on the learner's resources."""
        self.config, self.namespace = config, namespace
        self._slots = {
            role: MemberSlots(namespace, config.placement.of(role), shared) for role in ("rollout", "teacher")
        }

    def spawn(self, worker: Any, name: str, **options: Any) -> Any:
        """Create the rollout worker or teacher `name`."""
        slot = self._slots[_role_of(name)].take(name)
        return spawn(worker, self.namespace, name, self.config, index_of(name), **slot.options, **options)

    async def start(self, member: Member, method: str, *arguments: Any) -> None:
        """Wait for the member's resources, then call `method` on it.

        Raises `InfrastructureError` or `StageTimeout` after `deadlines.start_s`, for each of both.
        """
        timeout_s = self.config.deadlines.start_s
        if (slots := self._slots.get(_role_of(member.name))) is not None:
            await slots.wait_placed(member.actor_name, timeout_s)
        call = getattr(member.handle, method).remote(*arguments)
        await with_deadline(call, actor=member.name, stage=method, timeout_s=timeout_s)

    def close(self) -> None:
        """Release the resources of all rollout workers and teachers."""
        for slots in self._slots.values():
            slots.close()


def _role_of(name: str) -> str:
    return name.partition("-")[0]

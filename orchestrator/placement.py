"""Where a run's actors live in Ray: under which names, in which room."""

from dataclasses import dataclass
from typing import Any

import ray

from env_workers.travel import Luggage
from orchestrator.room import Room
from sdpo.config import EnvConfig


@dataclass(frozen=True, slots=True)
class Placement:
    """A run's actors: their namespace names the run and its incarnation."""

    namespace: str

    def spawn(self, worker: Any, name: str, *arguments: Any, **options: Any) -> Any:
        """Make one actor. It is not restarted by Ray: whoever replaces it decides when it may serve."""
        return worker.options(name=name, namespace=self.namespace, max_restarts=0, **options).remote(*arguments)

    def spawn_env(self, config: EnvConfig, luggage: Luggage, name: str, room: Room) -> Any:
        """Make an env worker that lives in `room`."""
        from env_workers.worker import EnvWorker, max_concurrency  # brings the sandboxes: not where nothing is judged

        options = {"max_concurrency": max_concurrency(config), **room.options}
        return self.spawn(ray.remote(EnvWorker), name, config, name, self.namespace, luggage, **options)

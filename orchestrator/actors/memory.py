"""Resident memory of a run's processes, by role, measured without waiting for any of them."""

import asyncio
from typing import Any

from ray.exceptions import RayError

from orchestrator.actors.run_actors import RunActors
from orchestrator.events import MemoryMeasured, emit
from sdpo.memory import resident_bytes


class MemoryGauge:
    """`ask` every actor once a step; `figures` returns the answers so far. Use both from the event loop.

    Neither blocks: a busy actor counts with its last answer, one that is starting or dead does not count.
    """

    def __init__(self, actors: RunActors) -> None:
        self._actors = actors
        self._answers = dict[str, dict[str, int]]()
        """By actor name: `bytes`, and `gpu_bytes` of a learner rank on a GPU."""
        self._asking = dict[str, asyncio.Task[None]]()

    def ask(self) -> None:
        """Ask every present actor whose last answer has arrived."""
        for _, name, handle in self._actors.actors:
            if name not in self._asking:
                self._asking[name] = asyncio.create_task(self._ask(name, handle))

    def figures(self) -> dict[str, float]:
        """Return `memory/<role>_bytes`, summed over the present actors, and the memory of this process."""
        sums = {"memory/orchestrator_bytes": float(resident_bytes(children=False))}
        for role, name, _ in self._actors.actors:
            for what, amount in self._answers.get(name, {}).items():
                key = f"memory/{role}_{what}"
                sums[key] = sums.get(key, 0.0) + amount
            if name in self._answers:
                emit(MemoryMeasured(actor=name, role=role, num_bytes=self._answers[name]["bytes"]))
        return sums

    async def _ask(self, name: str, handle: Any) -> None:
        try:
            self._answers[name] = await handle.memory.remote()
        except RayError:  # it died; its fleet replaces it
            self._answers.pop(name, None)
        finally:
            del self._asking[name]

"""What the processes of a run hold in memory, by role, without ever waiting for one of them."""

import asyncio
from typing import Any

from ray.exceptions import RayError

from orchestrator.house import House
from orchestrator.telemetry import current
from sdpo.memory import resident_bytes


class MemoryGauge:
    """`ask` every actor once a step; `figures` tells what has been answered by then. Use both from the event loop.

    Nobody is waited for: an actor that is busy counts with its last answer, one that is starting or gone not at all.
    """

    def __init__(self, house: House) -> None:
        self._house = house
        self._answers = dict[str, dict[str, int]]()
        """By actor name: `bytes`, and of a learner rank on a GPU `gpu_bytes`."""
        self._asking = dict[str, asyncio.Task[None]]()

    def ask(self) -> None:
        """Ask everybody who has answered before."""
        for _, name, handle in self._house.actors:
            if name not in self._asking:
                self._asking[name] = asyncio.create_task(self._ask(name, handle))

    def figures(self) -> dict[str, float]:
        """`memory/<role>_bytes`, the sum over the actors that there are now, and that of this process."""
        found = {"memory/orchestrator_bytes": float(resident_bytes(children=False))}
        for role, name, _ in self._house.actors:
            for what, amount in self._answers.get(name, {}).items():
                key = f"memory/{role}_{what}"
                found[key] = found.get(key, 0.0) + amount
            if name in self._answers:
                current().holds(name, role, self._answers[name]["bytes"])
        return found

    async def _ask(self, name: str, handle: Any) -> None:
        try:
            self._answers[name] = await handle.memory.remote()
        except RayError:  # it died, and is replaced by whoever watches it
            self._answers.pop(name, None)
        finally:
            del self._asking[name]

"""The staleness gate: the only back-pressure between the producer of batches and the learner."""

import asyncio


class StalenessGate:
    """Batch n may start once the weights that batch n - 1 - max_staleness made are published everywhere.

    With S = 0 this is the synchronous loop: batch n is sampled by the weights that batch n - 1 made.
    """

    def __init__(self, max_staleness: int, published_batches: int) -> None:
        self._max_staleness = max_staleness
        self._published_batches = published_batches
        self._moved = asyncio.Event()

    async def wait(self, batch: int) -> None:
        """Return when batch `batch` (counted from 0) may be sampled."""
        while batch - self._published_batches > self._max_staleness:
            self._moved.clear()
            await self._moved.wait()

    def publish(self, published_batches: int) -> None:
        """`published_batches` batches have been trained on and their weights are live."""
        self._published_batches = published_batches
        self._moved.set()

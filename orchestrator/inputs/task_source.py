"""The tasks of batch n: a pure function of the seed and n, so that resuming needs no state."""

import random
from collections.abc import Sequence
from functools import lru_cache
from typing import Protocol

from sdpo.errors import ConfigError
from sdpo.types import Task


class TaskOrder(Protocol):
    """Gives the tasks of each batch."""

    def batch(self, index: int) -> list[Task]:
        """Return the tasks of batch `index`, counted from 0; the same ones at every call."""


class TaskSource:
    """Visits the tasks in an order that depends on (seed, epoch) only; a batch never holds a task twice.

    The remainder of an epoch that does not fill a batch is left out of that epoch.
    """

    def __init__(self, tasks: Sequence[Task], batch_size: int, seed: int) -> None:
        """Raises `ConfigError` if there are fewer tasks than one batch needs."""
        if len(tasks) < batch_size:
            raise ConfigError(f"batch.tasks={batch_size}: allowed: at most {len(tasks)}, the size of tasks.train")
        self._tasks = list(tasks)
        self._batch_size = batch_size
        self._seed = seed
        self._order = lru_cache(maxsize=2)(self._shuffled)

    def batch(self, index: int) -> list[Task]:
        """Return the tasks of batch `index`, counted from 0."""
        epoch, offset = divmod(index, len(self._tasks) // self._batch_size)
        start = offset * self._batch_size
        return [self._tasks[i] for i in self._order(epoch)[start : start + self._batch_size]]

    def _shuffled(self, epoch: int) -> list[int]:
        order = list(range(len(self._tasks)))
        random.Random(f"{self._seed}/{epoch}").shuffle(order)
        return order

"""How many env workers a pool should have: by how long attempts wait, and by how many were needed lately."""

import math
from collections.abc import Sequence

from sdpo.config import EnvConfig, EnvPlacement


class Sizing:
    """Times are seconds of any one clock.

    A worker is needed by as many attempts as it has sandboxes, so that a pool that is about to shrink has nobody
    waiting; it takes one more, so that it does not idle between two attempts.
    """

    def __init__(self, config: EnvConfig, placement: EnvPlacement, now_s: float) -> None:
        self._config, self._placement = config, placement
        self._needed_at_s = [now_s] * placement.min_workers + [-math.inf] * (
            placement.max_workers - placement.min_workers
        )
        """[n]: when more than n workers were needed last."""

    @property
    def attempts_per_worker(self) -> int:
        """Attempts that one worker takes at one time: those that run, and one that waits."""
        return self._config.sandboxes_per_worker + 1

    def observe(self, now_s: float, num_attempts: int) -> None:
        """There are `num_attempts` now that run or wait."""
        needed = math.ceil(num_attempts / self._config.sandboxes_per_worker)
        for index in range(min(max(needed, self._placement.min_workers), self._placement.max_workers)):
            self._needed_at_s[index] = now_s

    def missing(self, waits_s: Sequence[float], num_starting: int, num_workers: int) -> int:
        """Workers to add, when attempts have waited for `waits_s` and `num_starting` of `num_workers` do not serve."""
        num_late = sum(wait_s > self._config.target_wait_s for wait_s in waits_s)
        wanted = math.ceil(num_late / self.attempts_per_worker) - num_starting
        return max(0, min(wanted, self._placement.max_workers - num_workers))

    def surplus(self, now_s: float, num_workers: int) -> int:
        """Workers of `num_workers` that were not needed within the last `idle_s`."""
        needed = sum(now_s - at_s <= self._config.idle_s for at_s in self._needed_at_s)
        return max(0, num_workers - max(needed, self._placement.min_workers))

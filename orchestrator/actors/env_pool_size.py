"""How many env workers the pool should have, from how long attempts wait and how many workers were needed lately."""

import math
from collections.abc import Sequence

from sdpo.config import EnvConfig, EnvPlacement


class Sizing:
    """Decides how many workers to add or remove. Times are seconds of any one clock.

    A worker counts as needed by as many attempts as it has sandboxes, so that no attempt waits when the pool is about
    to shrink. It takes one attempt more, so that it is not idle between two attempts.
    """

    def __init__(self, config: EnvConfig, placement: EnvPlacement, now_s: float) -> None:
        self._config, self._placement = config, placement
        self._needed_at_s = [now_s] * placement.min_workers + [-math.inf] * (
            placement.max_workers - placement.min_workers
        )
        """[n]: the last time at which more than n workers were needed."""

    @property
    def attempts_per_worker(self) -> int:
        """Attempts that one worker takes at a time: one for each sandbox, and one that waits."""
        return self._config.sandboxes_per_worker + 1

    def observe(self, now_s: float, num_attempts: int) -> None:
        """Record that `num_attempts` run or wait now."""
        needed = math.ceil(num_attempts / self._config.sandboxes_per_worker)
        for index in range(min(max(needed, self._placement.min_workers), self._placement.max_workers)):
            self._needed_at_s[index] = now_s

    def missing(self, waits_s: Sequence[float], num_starting: int, num_workers: int) -> int:
        """Return how many workers to add: attempts have waited `waits_s`, `num_starting` of `num_workers` start."""
        num_late = sum(wait_s > self._config.target_wait_s for wait_s in waits_s)
        wanted = math.ceil(num_late / self.attempts_per_worker) - num_starting
        return max(0, min(wanted, self._placement.max_workers - num_workers))

    def surplus(self, now_s: float, num_workers: int) -> int:
        """Return how many of `num_workers` were not needed within the last `idle_s`."""
        needed = sum(now_s - at_s <= self._config.idle_s for at_s in self._needed_at_s)
        return max(0, num_workers - max(needed, self._placement.min_workers))

"""How many env workers a pool adds and removes, by waits and by need, within its bounds."""

import pytest

from orchestrator.actors.env_pool_size import Sizing
from sdpo.config import EnvConfig, EnvPlacement

PLACEMENT = EnvPlacement(min_workers=2, max_workers=6)
CONFIG = EnvConfig(sandboxes_per_worker=3, target_wait_s=1.0, idle_s=10.0)


@pytest.mark.parametrize(
    ("waits_s", "starting", "workers", "expected"),
    [
        ([0.9] * 50, 0, 2, 0),  # no attempt waits too long
        ([1.1] + [0.5] * 50, 0, 2, 1),
        ([1.1] * 9, 0, 2, 3),  # three sandboxes and one that waits take four attempts each
        ([1.1] * 9, 2, 4, 1),  # two are starting
        ([1.1] * 9, 3, 5, 0),
        ([1.1] * 99, 0, 2, 4),  # no more than max_workers
        ([1.1] * 99, 0, 6, 0),
    ],
)
def test_grows_by_what_the_late_attempts_need(waits_s: list[float], starting: int, workers: int, expected: int) -> None:
    assert Sizing(CONFIG, PLACEMENT, 0.0).missing(waits_s, starting, workers) == expected


def test_shrinks_to_the_most_that_was_needed_lately() -> None:
    sizing = Sizing(CONFIG, PLACEMENT, 0.0)
    sizing.observe(1.0, 13)  # five workers of three sandboxes
    sizing.observe(5.0, 8)  # three
    sizing.observe(9.0, 0)
    assert sizing.surplus(11.0, 6) == 1
    assert sizing.surplus(11.5, 6) == 3
    assert sizing.surplus(15.5, 6) == 4, "not below min_workers, however long nobody asks"
    assert sizing.surplus(1e6, 2) == 0
    sizing.observe(16.0, 1000)
    assert sizing.surplus(16.0, 6) == 0

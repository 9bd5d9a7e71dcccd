"""The order of tasks: a function of the seed and the batch index."""

import pytest

from orchestrator.inputs.task_source import TaskSource
from sdpo.errors import ConfigError
from sdpo.types import Task
from tests.fixtures.orchestrator import task_of


def tasks(count: int) -> list[Task]:
    return [task_of(str(i)) for i in range(count)]


def test_task_source_is_a_function_of_seed_and_index() -> None:
    first, again, other = (TaskSource(tasks(10), 3, seed) for seed in (0, 0, 1))
    order = [[t.id for t in first.batch(i)] for i in range(6)]
    assert order == [[t.id for t in again.batch(i)] for i in (0, 1, 2, 3, 4, 5)]
    assert order != [[t.id for t in other.batch(i)] for i in range(6)]
    assert len({i for batch in order[:3] for i in batch}) == 9, "an epoch repeats nothing"
    assert set(order[0]) != set(order[3]), "the next epoch has another order"


def test_task_source_refuses_a_batch_larger_than_the_task_set() -> None:
    with pytest.raises(ConfigError, match=r"batch\.tasks=4: allowed: at most 3"):
        TaskSource(tasks(3), 4, 0)

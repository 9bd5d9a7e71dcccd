"""Micro-batch plans: complete, within budget, balanced, the same number on every rank."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from learner.packing import padded_tokens, plan_micro_batches

LENGTHS = st.lists(st.integers(1, 60), max_size=40)


@given(LENGTHS, st.integers(1, 5), st.integers(1, 200))
def test_every_sequence_once_and_within_budget(lengths: list[int], ranks: int, budget: int) -> None:
    plan = plan_micro_batches(lengths, ranks, budget)
    assert len(plan) == ranks
    assert sorted(i for rank in plan for part in rank for i in part) == list(range(len(lengths)))
    for part in (part for rank in plan for part in rank):
        assert len(part) <= 1 or padded_tokens(part, lengths) <= budget


@given(LENGTHS, st.integers(1, 5), st.integers(1, 200))
def test_ranks_have_equal_counts_and_near_equal_work(lengths: list[int], ranks: int, budget: int) -> None:
    plan = plan_micro_batches(lengths, ranks, budget)
    assert len({len(rank) for rank in plan}) == 1
    assert len(plan[0]) >= 1
    sums = [sum(lengths[i] for part in rank for i in part) for rank in plan]
    assert max(sums) - min(sums) <= max(lengths, default=0)


@given(LENGTHS.filter(lambda lengths: len(lengths) > 0), st.integers(1, 200))
def test_one_rank_gets_no_empty_micro_batch(lengths: list[int], budget: int) -> None:
    assert all(plan_micro_batches(lengths, 1, budget)[0])


def test_sorting_keeps_padding_low() -> None:
    lengths = [10, 100] * 8
    (parts,) = plan_micro_batches(lengths, 1, 400)
    assert sum(padded_tokens(part, lengths) for part in parts) <= sum(lengths) + 2 * 90


def test_documented_example() -> None:
    assert plan_micro_batches([5, 9, 4], 2, 10) == [[[1]], [[0, 2]]]


def test_rank_without_a_sequence_gets_empty_micro_batches() -> None:
    assert plan_micro_batches([7], 3, 10) == [[[0]], [[]], [[]]]


@pytest.mark.parametrize(("ranks", "budget"), [(0, 10), (1, 0)])
def test_refuses_impossible_plans(ranks: int, budget: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        plan_micro_batches([1], ranks, budget)


def test_planning_needs_neither_torch_nor_ray() -> None:
    code = "import sys, learner.packing, learner.messages; assert not {'torch', 'ray'} & set(sys.modules), 'heavy'"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)

"""Micro-batch plans: complete, within budget, balanced, the same number on every rank."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from learner.packing import packed_tokens, plan_micro_batches, plan_mini_batches

LENGTHS = st.lists(st.integers(1, 60), max_size=40)


@given(LENGTHS, st.integers(1, 5), st.integers(1, 200))
def test_every_sequence_once_and_within_budget(lengths: list[int], ranks: int, budget: int) -> None:
    plan = plan_micro_batches(lengths, ranks, budget)
    assert len(plan) == ranks
    assert sorted(i for rank in plan for part in rank for i in part) == list(range(len(lengths)))
    for part in (part for rank in plan for part in rank):
        assert len(part) <= 1 or packed_tokens(part, lengths) <= budget


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


@given(LENGTHS, st.integers(1, 200))
def test_micro_batches_of_one_rank_are_filled(lengths: list[int], budget: int) -> None:
    (parts,) = plan_micro_batches(lengths, 1, budget)
    half_full = [part for part in parts if packed_tokens(part, lengths) * 2 <= budget]
    assert len(half_full) <= 1


@given(LENGTHS, st.integers(1, 4), st.integers(1, 200))
def test_dearest_micro_batch_comes_first(lengths: list[int], ranks: int, budget: int) -> None:
    for rank in plan_micro_batches(lengths, ranks, budget):
        costs = [packed_tokens(part, lengths) for part in rank]
        assert costs == sorted(costs, reverse=True)


def test_documented_examples() -> None:
    assert plan_micro_batches([5, 9, 4, 2], 2, 10) == [[[1], [3]], [[0], [2]]]
    assert plan_mini_batches([[0, 1], [2]], [3, 4, 5], 1, 10, 1) == [[[[1, 0]], [[2]]]]


@given(st.lists(st.lists(st.integers(1, 60), max_size=6), max_size=9), st.integers(1, 4), st.integers(1, 4))
def test_mini_batches_hold_whole_groups_in_batch_order(sizes: list[list[int]], ranks: int, per_step: int) -> None:
    lengths = [length for group in sizes for length in group]
    ids = iter(range(len(lengths)))
    groups = [[next(ids) for _ in group] for group in sizes]
    plan = plan_mini_batches(groups, lengths, ranks, 100, per_step)
    wanted = [groups[start : start + per_step] for start in range(0, max(len(groups), 1), per_step)]
    assert {len(rank) for rank in plan} == {len(wanted)}
    for step, members in enumerate(wanted):
        shares = [rank[step] for rank in plan]
        assert len({len(share) for share in shares}) == 1
        assert sorted(i for s in shares for part in s for i in part) == [i for group in members for i in group]
        sums = [sum(packed_tokens(part, lengths) for part in share) for share in shares]
        assert max(sums) - min(sums) <= max((lengths[i] for group in members for i in group), default=0)
        assert all(len(part) <= 1 or packed_tokens(part, lengths) <= 100 for share in shares for part in share)


def test_rank_without_a_sequence_gets_empty_micro_batches() -> None:
    assert plan_micro_batches([7], 3, 10) == [[[0]], [[]], [[]]]


@pytest.mark.parametrize(("ranks", "budget"), [(0, 10), (1, 0)])
def test_refuses_impossible_plans(ranks: int, budget: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        plan_micro_batches([1], ranks, budget)


def test_refuses_mini_batches_without_a_group() -> None:
    with pytest.raises(ValueError, match="groups_per_mini_batch=0: allowed: at least 1"):
        plan_mini_batches([[0]], [1], 1, 10, 0)


def test_planning_needs_neither_torch_nor_ray() -> None:
    code = "import sys, learner.packing, learner.messages; assert not {'torch', 'ray'} & set(sys.modules), 'heavy'"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)

"""Which sequences go to which rank, optimizer step and micro-batch. Numpy and nothing heavier: the orchestrator
imports this. Every plan is a pure function of the lengths and their order.
"""

import math
from collections.abc import Sequence

import numpy as np


def plan_micro_batches(lengths: Sequence[int], num_ranks: int, tokens_per_micro_batch: int) -> list[list[list[int]]]:
    """Return the plan [rank][micro-batch][index into lengths]; every index appears exactly once.

    A micro-batch costs the sum of its lengths (it is packed), at most `tokens_per_micro_batch` except where one
    sequence alone is longer. Token sums of two ranks differ by at most the longest sequence. Every rank gets the
    same number of micro-batches, at least one, the largest first; a rank without enough sequences gets empty ones.
    Raises `ValueError` unless there is a rank and a token.

    Example: `plan_micro_batches([5, 9, 4, 2], 2, 10) == [[[1], [3]], [[0], [2]]]`
    """
    if num_ranks < 1 or tokens_per_micro_batch < 1:
        raise ValueError(f"num_ranks={num_ranks}, tokens_per_micro_batch={tokens_per_micro_batch}: allowed: at least 1")
    longest_first = np.argsort(-np.asarray(lengths, dtype=np.int64), kind="stable").tolist()
    plan = [_fill(share, lengths, tokens_per_micro_batch) for share in _deal(longest_first, num_ranks)]
    num_micro_batches = max(1, *(len(micro_batches) for micro_batches in plan))
    for micro_batches in plan:
        _stretch(micro_batches, lengths, num_micro_batches)
        micro_batches.sort(key=lambda m: -packed_tokens(m, lengths))
    return plan


def plan_mini_batches(
    groups: Sequence[Sequence[int]],
    lengths: Sequence[int],
    num_ranks: int,
    tokens_per_micro_batch: int,
    groups_per_mini_batch: int,
) -> list[list[list[list[int]]]]:
    """Return the plan [rank][mini-batch][micro-batch][index into lengths]: one optimizer step for every mini-batch.

    `groups[g]` are the indices of the attempts at task g, in batch order; each mini-batch holds the attempts of
    `groups_per_mini_batch` consecutive groups (the last one of what is left) and is dealt to all ranks as by
    `plan_micro_batches`: within a mini-batch every rank has the same number of micro-batches. A group that lost its
    attempts counts as a group, so that the number of steps is that of the config; without groups there is one step
    of nothing. Raises `ValueError` as `plan_micro_batches`, or without a group per mini-batch.

    Example: `plan_mini_batches([[0, 1], [2]], [3, 4, 5], 1, 10, 1) == [[[[1, 0]], [[2]]]]`
    """
    if groups_per_mini_batch < 1:
        raise ValueError(f"groups_per_mini_batch={groups_per_mini_batch}: allowed: at least 1")
    plan: list[list[list[list[int]]]] = [[] for _ in range(num_ranks)]
    for start in range(0, max(len(groups), 1), groups_per_mini_batch):
        members = [index for group in groups[start : start + groups_per_mini_batch] for index in group]
        shares = plan_micro_batches([lengths[i] for i in members], num_ranks, tokens_per_micro_batch)
        for rank_plan, share in zip(plan, shares, strict=True):
            rank_plan.append([[members[i] for i in micro_batch] for micro_batch in share])
    return plan


def packed_tokens(micro_batch: Sequence[int], lengths: Sequence[int]) -> int:
    """Return the sum of the lengths: what one micro-batch costs."""
    return sum(lengths[i] for i in micro_batch)


def _deal(indices: list[int], num_ranks: int) -> list[list[int]]:
    """Deal indices to the ranks in turn, there and back again: sorted input gives near-equal sums."""
    shares: list[list[int]] = [[] for _ in range(num_ranks)]
    for position, index in enumerate(indices):
        lap, rank = divmod(position, num_ranks)
        shares[rank if lap % 2 == 0 else num_ranks - 1 - rank].append(index)
    return shares


def _fill(share: list[int], lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Pack a longest-first share by first fit: near the fewest micro-batches that the budget allows."""
    micro_batches: list[list[int]] = []
    free: list[int] = []
    for index in share:
        fitting = next((m for m, left in enumerate(free) if lengths[index] <= left), None)
        if fitting is None:
            micro_batches.append([index])
            free.append(budget - lengths[index])
        else:
            micro_batches[fitting].append(index)
            free[fitting] -= lengths[index]
    return micro_batches


def _stretch(micro_batches: list[list[int]], lengths: Sequence[int], count: int) -> None:
    """Bring a rank to `count` micro-batches: halve its most expensive ones, then add empty ones."""
    while len(micro_batches) < count:
        largest = max((m for m in micro_batches if len(m) > 1), key=lambda m: packed_tokens(m, lengths), default=[])
        half = math.ceil(len(largest) / 2)
        micro_batches.append(largest[half:])
        del largest[half:]

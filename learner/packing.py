"""Which sequences go to which rank and micro-batch. Numpy and nothing heavier: the orchestrator imports this."""

import math
from collections.abc import Sequence

import numpy as np


def plan_micro_batches(lengths: Sequence[int], num_ranks: int, tokens_per_micro_batch: int) -> list[list[list[int]]]:
    """Plan [rank][micro-batch][index into lengths]; every index appears exactly once.

    A micro-batch costs count x longest tokens (it is padded), at most `tokens_per_micro_batch` except where one
    sequence alone is longer. Token sums of two ranks differ by at most the longest sequence. Every rank gets the
    same number of micro-batches, at least one; a rank without enough sequences gets empty ones.

    Example: `plan_micro_batches([5, 9, 4], 2, 10) == [[[1]], [[0, 2]]]`
    """
    if num_ranks < 1 or tokens_per_micro_batch < 1:
        raise ValueError(f"num_ranks={num_ranks}, tokens_per_micro_batch={tokens_per_micro_batch}: allowed: at least 1")
    longest_first = np.argsort(-np.asarray(lengths, dtype=np.int64), kind="stable").tolist()
    plan = [_cut(share, lengths, tokens_per_micro_batch) for share in _deal(longest_first, num_ranks)]
    num_micro_batches = max(1, *(len(micro_batches) for micro_batches in plan))
    for micro_batches in plan:
        _stretch(micro_batches, lengths, num_micro_batches)
    return plan


def padded_tokens(micro_batch: Sequence[int], lengths: Sequence[int]) -> int:
    """count x longest: what one micro-batch costs."""
    return len(micro_batch) * max((lengths[i] for i in micro_batch), default=0)


def _deal(indices: list[int], num_ranks: int) -> list[list[int]]:
    """Deal like cards, there and back again: sorted input gives near-equal sums."""
    shares: list[list[int]] = [[] for _ in range(num_ranks)]
    for place, index in enumerate(indices):
        turn, seat = divmod(place, num_ranks)
        shares[seat if turn % 2 == 0 else num_ranks - 1 - seat].append(index)
    return shares


def _cut(share: list[int], lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Cut a longest-first share into micro-batches within the budget, as even as that allows."""
    micro_batches: list[list[int]] = []
    for index in share:
        if micro_batches and (len(micro_batches[-1]) + 1) * lengths[micro_batches[-1][0]] <= budget:
            micro_batches[-1].append(index)
        else:
            micro_batches.append([index])
    return micro_batches


def _stretch(micro_batches: list[list[int]], lengths: Sequence[int], count: int) -> None:
    """Bring a rank to `count` micro-batches: halve its dearest ones, then add empty ones."""
    while len(micro_batches) < count:
        dearest = max((m for m in micro_batches if len(m) > 1), key=lambda m: padded_tokens(m, lengths), default=[])
        half = math.ceil(len(dearest) / 2)
        micro_batches.append(dearest[half:])
        del dearest[half:]

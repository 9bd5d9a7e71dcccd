"""Ranks compare their plans before they run them: with unequal plans they would wait for each other without end.

All functions are collective.
"""

from collections.abc import Sequence

import torch
import torch.distributed as dist

from sdpo.errors import InfrastructureError


def summed_counts(counts: Sequence[Sequence[int]], device: torch.device) -> list[int]:
    """Return the sum of each mini-batch over all ranks; `counts[m][j]` is this rank's for micro-batch j of m.

    Raises `InfrastructureError` on every rank if the ranks differ in the number of mini-batches or of micro-batches.
    """
    _refuse_difference("mini-batches", [len(counts)], device)
    _refuse_difference("micro-batches", [len(part) for part in counts], device)
    totals = torch.tensor([sum(part) for part in counts], dtype=torch.int64, device=device)
    dist.all_reduce(totals)
    return [int(total) for total in totals.tolist()]


def _refuse_difference(what: str, numbers: list[int], device: torch.device) -> None:
    bounds = torch.tensor([numbers, [-n for n in numbers]], dtype=torch.int64, device=device)
    dist.all_reduce(bounds, dist.ReduceOp.MAX)
    largest, smallest = bounds[0].tolist(), (-bounds[1]).tolist()
    if largest != smallest:
        raise InfrastructureError(
            f"ranks hold different numbers of {what}: {smallest} to {largest}, this one {numbers}"
        )

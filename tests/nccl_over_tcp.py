"""vLLM's own NCCL weight transfer where there is no GPU: its code on both sides, only NCCL itself is replaced.

Importing this module, in a process of its own, makes vLLM's process groups meet at the same address with the same
ranks, but send through the store of the meeting place; streams of a GPU become nothing.
"""

from contextlib import nullcontext
from typing import Any

import torch
from vllm.distributed.utils import StatelessProcessGroup
from vllm.distributed.weight_transfer import nccl_common, packed_tensor


class StoreCommunicator:
    """What the transfer uses of vLLM's `PyNcclCommunicator`. Complete when every rank of the group has come."""

    noise = 0
    """Flipped in every byte that is sent."""

    def __init__(self, address: str, port: int, rank: int, world_size: int, device: Any) -> None:
        self._group = StatelessProcessGroup.create(address, port, rank, world_size)
        assert self._group.all_gather_obj(rank) == list(range(world_size))

    def broadcast(self, tensor: torch.Tensor, src: int, stream: Any = None) -> None:
        received = self._group.broadcast(tensor ^ self.noise, src)
        if self._group.rank != src:
            assert received.shape == tensor.shape
            tensor.copy_(received)

    def destroy(self) -> None:
        del self._group


class NoStream:
    def synchronize(self) -> None:
        """Everything has happened already."""


nccl_common.stateless_init_process_group = StoreCommunicator
packed_tensor._get_streams = lambda device, count: (NoStream(),) * count
torch.accelerator.current_device_index = lambda: 0
torch.cuda.stream = lambda stream: nullcontext()  # type: ignore[assignment, misc, return-value]

"""A weight-transfer engine for vLLM's processes, which reads buckets from the shared-memory ring.

vLLM imports this module in each of its worker processes because `worker_extension_cls` names a class of it; the import
registers the engine under the name "shm". It follows the protocol of vLLM's own engines: start, update for every
bucket, finish, with vLLM's layerwise reload in between.
"""

import mmap
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from vllm.distributed.weight_transfer import WeightTransferEngine, WeightTransferEngineFactory
from vllm.distributed.weight_transfer.base import WeightTransferInitInfo, WeightTransferUpdateInfo
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload

BACKEND = "shm"


@dataclass
class ShmInitInfo(WeightTransferInitInfo):  # type: ignore[misc]
    """Empty: every update names the location of its bytes."""


@dataclass
class ShmUpdateInfo(WeightTransferUpdateInfo):  # type: ignore[misc]
    """One bucket. tensors: (name, torch dtype, shape, offset in the ring, bytes)."""

    ring_path: str
    ring_bytes: int
    ring_inode: int
    tensors: list[tuple[str, str, list[int], int, int]]


class ShmWeightTransferEngine(WeightTransferEngine[ShmInitInfo, ShmUpdateInfo]):  # type: ignore[misc]
    """Loads buckets of whole tensors, in checkpoint names and shapes, into the model of this process."""

    init_info_cls = ShmInitInfo
    update_info_cls = ShmUpdateInfo

    _ring: mmap.mmap | None = None
    _ring_inode: int | None = None

    def init_transfer_engine(self, init_info: ShmInitInfo) -> None:
        """Do nothing: no handshake is needed."""

    def start_weight_update(self) -> None:
        """Put the model's layers into the state in which checkpoint weights can be loaded."""
        initialize_layerwise_reload(self.model)

    def receive_weights(self, update_info: ShmUpdateInfo) -> None:
        """Load one bucket. Tensors are copied out of the ring: vLLM keeps them until their layer is complete."""
        ring = self._mapped(update_info)
        self.model.load_weights(self._tensors(ring, update_info))

    def finish_weight_update(self) -> None:
        """Complete the layers and unmap the ring."""
        finalize_layerwise_reload(self.model, self.model_config)
        if self.device.type == "cpu":
            _repack_heads(self.model)
        self._unmap()

    def shutdown(self) -> None:
        """Unmap the ring."""
        self._unmap()

    def _tensors(self, ring: mmap.mmap, info: ShmUpdateInfo) -> Iterator[tuple[str, torch.Tensor]]:
        for name, dtype, shape, offset, num_bytes in info.tensors:
            raw = torch.frombuffer(ring, dtype=torch.uint8, count=num_bytes, offset=offset)
            owned = raw.clone() if self.device.type == "cpu" else raw.to(self.device)
            yield name, owned.view(getattr(torch, dtype)).reshape(shape)

    def _mapped(self, info: ShmUpdateInfo) -> mmap.mmap:
        if self._ring is None or self._ring_inode != info.ring_inode:
            self._unmap()
            with open(info.ring_path, "r+b") as file:
                self._ring = mmap.mmap(file.fileno(), info.ring_bytes)
            self._ring_inode = info.ring_inode
        return self._ring

    def _unmap(self) -> None:
        # the mapping ends with its last reference, which may be a view of it
        self._ring, self._ring_inode = None, None


def _repack_heads(model: torch.nn.Module) -> None:
    """Pack the weights of output heads again, because vLLM computes with packed copies on CPU.

    A head that shares the embedding's weight receives none of its own in a reload, so vLLM would keep its old copy.
    """
    for layer in model.modules():
        if isinstance(layer, ParallelLMHead):
            layer.quant_method.process_weights_after_loading(layer)


WeightTransferEngineFactory.register_engine(BACKEND, ShmWeightTransferEngine)


class EngineExtension:
    """Mixed into vLLM's worker class; naming it is what makes vLLM import this module."""

    weight_transfer_engine: WeightTransferEngine | None

    def leave_transfer_group(self) -> None:
        """Close the group of an earlier handshake. vLLM's own call refuses to do so during an update."""
        if self.weight_transfer_engine is not None:
            self.weight_transfer_engine.shutdown()

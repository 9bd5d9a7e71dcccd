"""Sending the policy by vLLM's own transfer (`weights.backend: nccl` or `ipc`): vLLM's trainer side on every rank.

Rank 0 sends; the other ranks gather. The orchestrator opens and closes the update on the receivers; in between, this
side makes vLLM's handshake and sends one round. vllm is imported here only, and only when such a sender is made.
"""

import math
from collections.abc import Iterator
from typing import Any

import ray
import torch
from ray.exceptions import GetTimeoutError, OutOfMemoryError, RayActorError

from learner.backends.base import Backend
from sdpo.config import RunConfig
from sdpo.errors import StageTimeout, WeightSyncError
from sdpo.weights import StreamTally


class PolicySource:
    """vLLM's `WeightSource` over the learner's policy: checkpoint names, the compute dtype, one tensor at a time.

    Iterating is a collective: the same order on every rank. `tally` holds what the last pass yielded.
    """

    def __init__(self, backend: Backend, dtype: torch.dtype) -> None:
        self._backend, self._dtype = backend, dtype
        self.tally = StreamTally()

    def metadata(self) -> list[Any]:
        """Return vLLM's `ParamMeta` of every tensor, in order; gathers nothing."""
        from vllm.distributed.weight_transfer import ParamMeta

        return [ParamMeta(name, self._dtype, shape) for name, shape in self._backend.tensor_shapes().items()]

    @property
    def largest_bytes(self) -> int:
        """Return the bytes of the largest tensor."""
        return max(math.prod(shape) for shape in self._backend.tensor_shapes().values()) * self._dtype.itemsize

    def __iter__(self) -> Iterator[tuple[str, torch.Tensor]]:
        self.tally = StreamTally()
        for name, tensor in self._backend.full_tensors(self._dtype):
            self.tally.announce(name, str(self._dtype).removeprefix("torch."), tuple(tensor.shape), tensor.nbytes)
            yield name, tensor


class RolloutClient:
    """vLLM's `VLLMWeightSyncClient` over rollout actors, each an engine of `ranks_per_engine` GPUs.

    A receiver's failure is kept in `failed` (name to first line) and not raised: the ranks must go on in step.
    """

    def __init__(self, receivers: dict[str, Any], ranks_per_engine: int, timeout_s: float) -> None:
        self.receivers, self.failed = receivers, dict[str, str]()
        self._ranks_per_engine, self._timeout_s = ranks_per_engine, timeout_s

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        """Tell each engine, which knows nothing of the others, where its ranks begin in the common group."""
        infos = {}
        for position, name in enumerate(self.receivers):
            infos[name] = dict(init_info)
            if "rank_offset" in init_info:
                infos[name]["rank_offset"] += position * self._ranks_per_engine
        self._call("init_transfer", infos)

    def start_weight_update(self) -> None:
        """Do nothing: the orchestrator has begun the update."""

    def update_weights(self, update_info: dict[str, Any]) -> None:
        """Tell every receiver what comes, and wait until it has arrived."""
        self._call("update_from_transfer", dict.fromkeys(self.receivers, update_info))

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        """Do nothing: the orchestrator finishes the update, with the manifest."""

    def _call(self, method: str, arguments: dict[str, dict[str, Any]]) -> None:
        names = [name for name in self.receivers if name not in self.failed]
        calls = {name: getattr(self.receivers[name], method).remote(arguments[name]) for name in names}
        for name, call in calls.items():
            try:
                ray.get(call, timeout=self._timeout_s)
            except (RayActorError, OutOfMemoryError, WeightSyncError, StageTimeout, GetTimeoutError) as error:
                self.failed[name] = str(getattr(error, "cause", error)).splitlines()[0]


class DirectSender:
    """vLLM's trainer engine, joined with a fixed set of receivers. Make, use and close it on every rank."""

    def __init__(
        self, config: RunConfig, rank: int, source: PolicySource, client: RolloutClient, rendezvous: tuple[str, int]
    ) -> None:
        """Make the handshake. rendezvous: (ip, free port) of rank 0's node; other ranks' do not matter."""
        from vllm.distributed.weight_transfer import WeightTransferTrainerFactory

        self.receivers, self._client, self._source = client.receivers, client, source
        world_size = 1 + len(client.receivers) * config.placement.rollout.tensor_parallel
        info = _trainer_info(config, rank, world_size, source, rendezvous)
        self._engine = WeightTransferTrainerFactory.trainer_init(init_info=info, client=client, source=source)

    def send(self) -> tuple[StreamTally, dict[str, str]]:
        """Send one round; return what was sent, and what failed by receiver."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()  # vLLM sends on streams of its own, which do not wait for the optimizer's
        self._engine.send_weights()
        return self._source.tally, self._client.failed

    def close(self) -> None:
        """Leave the group."""
        self._engine.shutdown()


def _trainer_info(
    config: RunConfig, rank: int, world_size: int, source: PolicySource, rendezvous: tuple[str, int]
) -> Any:
    """Packed both ways: bounded memory, and receivers that keep copies, not views of the sender's memory."""
    bucket_bytes = config.weights.bucket_bytes
    if config.weights_backend == "nccl":
        from vllm.distributed.weight_transfer.nccl_engine import NCCLTrainerInitInfo

        address, port = rendezvous
        return NCCLTrainerInitInfo(address, port, world_size, packed_buffer_size_bytes=bucket_bytes, rank=rank)
    from vllm.distributed.weight_transfer.ipc_engine import IPCTrainerInitInfo

    buffer_bytes = max(bucket_bytes, source.largest_bytes)  # one larger tensor would be refused
    return IPCTrainerInitInfo(packed=True, packed_buffer_size_bytes=buffer_bytes, rank=rank)

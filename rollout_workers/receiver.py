"""One weight update of an engine: pause, weights, finish, resume, audit.

Weights come as buckets through the shared-memory ring, or by vLLM's own transfer ("nccl", "ipc").

Runs on the engine's event loop. After any exception the engine must not serve again; it stays paused,
unless the audit failed, which comes last: samples are handed out only after the audit.
"""

import asyncio
from dataclasses import asdict
from math import prod
from typing import TYPE_CHECKING, Any

import torch
from vllm.distributed.weight_transfer.base import WeightTransferInitRequest, WeightTransferUpdateRequest

from rollout_workers.generation import probe_log_probs, probe_sampling
from rollout_workers.ring import NUM_SLOTS, SharedRing
from sdpo.config import RunConfig
from sdpo.errors import WeightSyncError
from sdpo.types import Float32, Int32, Version
from sdpo.weights import StreamTally, WeightAudit, WeightBucket, WeightManifest, audit_probe

if TYPE_CHECKING:
    from vllm.v1.engine.async_llm import AsyncLLM


class EngineUpdate:
    """An update in progress. It holds at most `NUM_SLOTS` buckets and releases their memory when it ends."""

    def __init__(self, engine: "AsyncLLM", version: Version, slot_bytes: int) -> None:
        self._engine = engine
        self._version = version
        self._tally = StreamTally()
        self._ring = SharedRing(slot_bytes)
        self._loading: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        """Pause the running requests, drop every cached key and value, and prepare the model for loading."""
        await self._engine.pause_generation(mode="keep", clear_cache=True)
        await self._engine.start_weight_update()

    async def receive(self, bucket: WeightBucket) -> None:
        """Check and copy one bucket while the engine still loads the one before, whose errors are raised here."""
        self._tally.add(bucket)
        if bucket.data.nbytes > self._ring.slot_bytes:
            await self._loaded()
            self._ring.close()
            self._ring = SharedRing(bucket.data.nbytes)
        offset = self._ring.write(bucket.index % NUM_SLOTS, bucket.data)
        await self._loaded()
        self._loading = asyncio.create_task(self._load(bucket, offset))

    async def join(self, init_info: dict[str, Any]) -> None:
        """Leave the transfer group of an earlier handshake of vLLM's own transfers and answer this one."""
        await self._engine.collective_rpc("leave_transfer_group")
        await self._engine.init_weight_transfer_engine(WeightTransferInitRequest(init_info=init_info))

    async def receive_announced(self, update_info: dict[str, Any]) -> None:
        """Receive the tensors that `update_info` names by vLLM's own transfer."""
        await self._engine.update_weights(WeightTransferUpdateRequest(update_info=update_info))
        named = (update_info["names"], update_info["dtype_names"], update_info["shapes"])
        for name, dtype, shape in zip(*named, strict=True):
            self._tally.announce(name, dtype, tuple(shape), prod(shape) * getattr(torch, dtype).itemsize)

    async def finish(self, manifest: WeightManifest, config: RunConfig) -> WeightAudit:
        """Complete the update, resume, and compare a probe's log-probs with the sender's."""
        await self._loaded()
        if manifest.version != self._version:
            raise WeightSyncError(f"the manifest is of weights {manifest.version}, the update began as {self._version}")
        self._tally.check(manifest)
        await self._engine.finish_weight_update(weight_version=str(self._version))
        self._ring.close()
        await self._engine.resume_generation()
        return audit_probe(manifest, await self._score(manifest.probe_ids), config)

    async def abandon(self) -> None:
        """Release the ring after a failure."""
        if self._loading is not None:
            self._loading.cancel()
        self._ring.close()

    async def _load(self, bucket: WeightBucket, offset: int) -> None:
        tensors = [(s.name, s.dtype, list(s.shape), offset + s.offset, s.num_bytes) for s in bucket.specs]
        ring = {f"ring_{key.removeprefix('num_')}": value for key, value in asdict(self._ring.address).items()}
        await self._engine.update_weights(WeightTransferUpdateRequest(update_info={**ring, "tensors": tensors}))

    async def _loaded(self) -> None:
        if self._loading is not None:
            await self._loading
            self._loading = None

    async def _score(self, probe_ids: Int32) -> Float32:
        request_id = f"probe-{self._version}"
        prompt = {"prompt_token_ids": probe_ids.tolist()}
        outputs = [o async for o in self._engine.generate(prompt, probe_sampling(), request_id)]
        return probe_log_probs(outputs[-1])

"""Sampling for deterministic runs: a batch reaches the engines as a whole, in one order, on fixed workers.

Which sequences share a forward pass decides the last bits of their log-probs. So the requests of a batch are held back
until all have arrived; then every worker gets its share (by a hash of the task) in the batch's own order, in one call.
A worker that dies is replaced and gets its whole share again; samples that it had delivered are kept, because sampling
them again would give equal ones.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

from orchestrator.actors.fleet import ACTOR_FAILURES, Fleet, Member
from orchestrator.actors.sampler import Sampler, StreamingSampler, stream_samples
from orchestrator.telemetry.deadlines import with_deadline
from sdpo.config import RunConfig
from sdpo.errors import InfrastructureError
from sdpo.seeds import stable_index
from sdpo.types import GenerationRequest, RolloutHeader, TurnRequest


class RequestSlot:
    """One request of a batch, and the samples that have arrived for it."""

    def __init__(self, request: GenerationRequest) -> None:
        self.request = request
        self.arrived: asyncio.Queue[tuple[RolloutHeader, Any] | BaseException] = asyncio.Queue()


class BatchBarrier:
    """Collects the requests of one batch until all have arrived. Requests for the same task differ by their seeds."""

    def __init__(self, task_ids: Sequence[str]) -> None:
        self._positions = {task_id: position for position, task_id in reversed(list(enumerate(task_ids)))}
        self._size = len(task_ids)
        self._slots: list[RequestSlot] = []
        self.complete = asyncio.Event()

    def join(self, request: GenerationRequest) -> RequestSlot:
        """Add a request. Raises `InfrastructureError` for one that was not announced."""
        if request.task_id not in self._positions or self.complete.is_set():
            raise InfrastructureError(f"task {request.task_id} is not part of the batch that was announced")
        slot = RequestSlot(request)
        self._slots.append(slot)
        if len(self._slots) == self._size:
            self.complete.set()
        return slot

    def shares(self, num_workers: int) -> list[list[RequestSlot]]:
        """Return the requests of each worker, in the order of the batch."""
        shares: list[list[RequestSlot]] = [[] for _ in range(num_workers)]
        for slot in sorted(self._slots, key=lambda a: (self._positions[a.request.task_id], a.request.seeds)):
            shares[stable_index(slot.request.task_id, num_workers)].append(slot)
        return shares


class LockstepSampler:
    """Use from one event loop, one batch at a time."""

    def __init__(self, fleet: Fleet, timeout_s: float) -> None:
        self._fleet, self._timeout_s = fleet, timeout_s
        self._barrier = BatchBarrier([])
        self._running: list[asyncio.Task[None]] = []

    def expect(self, task_ids: Sequence[str]) -> None:
        """Hold requests back from now on until there is one for each of `task_ids`."""
        self._barrier = BatchBarrier(task_ids)
        self._running = []

    async def sample(self, request: GenerationRequest) -> AsyncIterator[tuple[RolloutHeader, Any]]:
        """As `Sampler.sample`; a caller that stops early ends the batch."""
        barrier = self._barrier
        slot = barrier.join(request)
        if barrier.complete.is_set():
            shares = zip(self._fleet.members, barrier.shares(len(self._fleet.members)), strict=True)
            self._running = [asyncio.create_task(self._serve(member, share)) for member, share in shares if share]
        missing = len(request.sample_indices)
        try:
            await with_deadline(
                barrier.complete.wait(), actor="producer", stage="a batch's requests", timeout_s=self._timeout_s
            )
            while missing:
                arrived = await slot.arrived.get()  # returns: a share delivers all samples or an error
                if isinstance(arrived, BaseException):
                    raise arrived
                yield arrived
                missing -= 1
        finally:
            if missing:
                for share in self._running:
                    share.cancel()

    async def extend(self, turn: TurnRequest, previous: Any) -> tuple[RolloutHeader, Any]:
        """Refuse a second turn: which attempts need one is known only while others are sampled."""
        raise InfrastructureError(f"task {turn.task_id}: a deterministic run samples one turn an attempt")

    async def _serve(self, member: Member, slots: Sequence[RequestSlot]) -> None:
        """Have a share sampled by `member`; an error is passed on to all its requests."""
        try:
            await self._deliver(member, slots)
        except BaseException as error:
            for slot in slots:
                slot.arrived.put_nowait(error)
            if not isinstance(error, Exception):
                raise

    async def _deliver(self, member: Member, slots: Sequence[RequestSlot]) -> None:
        owners = {(slot.request.task_id, i): slot for slot in slots for i in slot.request.sample_indices}
        requests = [slot.request for slot in slots]
        while owners:
            async with self._fleet.checkout(only=member):
                handle = member.handle
                try:
                    async for header, rollout in stream_samples(
                        member, "generate_batch", requests, timeout_s=self._timeout_s
                    ):
                        owner = owners.pop((header.task_id, header.sample_index), None)
                        if owner is not None:  # else it was delivered before the worker died
                            owner.arrived.put_nowait((header, rollout))
                    if owners:
                        raise InfrastructureError(
                            f"{member.name} ended with {len(owners)} samples of a batch unfinished"
                        )
                except ACTOR_FAILURES as error:
                    self._fleet.report(member, handle, error)


def make_sampler(config: RunConfig, fleet: Fleet) -> Sampler:
    """Return the sampler for `deterministic` or other runs."""
    kind = LockstepSampler if config.deterministic else StreamingSampler
    return kind(fleet, config.deadlines.generate_s)

"""Sampling for deterministic runs: a batch reaches the engines whole, in one order, on fixed workers.

Which sequences share a forward decides the last bits of their log-probs. So the requests of a batch are held back
until all are there; then every worker gets its share (by a hash of the task) in the batch's own order, in one call. A
worker that dies is replaced and gets its whole share again: the samples that it had delivered stay as they are, since
they would come out equal.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

from orchestrator.fleet import ACTOR_FAILURES, Fleet, Member
from orchestrator.rollouts import Sampler, StreamingSampler, stream_samples
from orchestrator.waits import within
from sdpo.config import RunConfig
from sdpo.errors import InfrastructureError
from sdpo.seeds import stable_index
from sdpo.types import GenerationRequest, RolloutHeader, TurnRequest


class Lane:
    """One request of a batch, and what has come back for it."""

    def __init__(self, request: GenerationRequest) -> None:
        self.request = request
        self.arrived: asyncio.Queue[tuple[RolloutHeader, Any] | BaseException] = asyncio.Queue()


class Gathering:
    """The requests of one batch, until all are there. Two requests for one task are told apart by their seeds."""

    def __init__(self, task_ids: Sequence[str]) -> None:
        self._places = {task_id: place for place, task_id in reversed(list(enumerate(task_ids)))}
        self._size = len(task_ids)
        self._lanes: list[Lane] = []
        self.complete = asyncio.Event()

    def join(self, request: GenerationRequest) -> Lane:
        """Raises `InfrastructureError` for a request that was not announced."""
        if request.task_id not in self._places or self.complete.is_set():
            raise InfrastructureError(f"task {request.task_id} is not part of the batch that was announced")
        lane = Lane(request)
        self._lanes.append(lane)
        if len(self._lanes) == self._size:
            self.complete.set()
        return lane

    def shares(self, num_workers: int) -> list[list[Lane]]:
        """By worker, in the order of the batch."""
        shares: list[list[Lane]] = [[] for _ in range(num_workers)]
        for lane in sorted(self._lanes, key=lambda a: (self._places[a.request.task_id], a.request.seeds)):
            shares[stable_index(lane.request.task_id, num_workers)].append(lane)
        return shares


class LockstepSampler:
    """Use from one event loop, one batch at a time."""

    def __init__(self, fleet: Fleet, timeout_s: float) -> None:
        self._fleet, self._timeout_s = fleet, timeout_s
        self._gathering = Gathering([])
        self._running: list[asyncio.Task[None]] = []

    def expect(self, task_ids: Sequence[str]) -> None:
        """Requests wait from now on until there is one for each of `task_ids`."""
        self._gathering = Gathering(task_ids)
        self._running = []

    async def sample(self, request: GenerationRequest) -> AsyncIterator[tuple[RolloutHeader, Any]]:
        """As `Sampler.sample`; whoever leaves early ends the batch."""
        gathering = self._gathering
        lane = gathering.join(request)
        if gathering.complete.is_set():
            shares = zip(self._fleet.members, gathering.shares(len(self._fleet.members)), strict=True)
            self._running = [asyncio.create_task(self._serve(member, share)) for member, share in shares if share]
        missing = len(request.sample_indices)
        try:
            await within(
                gathering.complete.wait(), actor="producer", stage="a batch's requests", timeout_s=self._timeout_s
            )
            while missing:
                arrived = await lane.arrived.get()  # ends: a share delivers everything or an error
                if isinstance(arrived, BaseException):
                    raise arrived
                yield arrived
                missing -= 1
        finally:
            if missing:
                for share in self._running:
                    share.cancel()

    async def extend(self, turn: TurnRequest, previous: Any) -> tuple[RolloutHeader, Any]:
        """No second turns: which attempts need one is known only while others are sampled."""
        raise InfrastructureError(f"task {turn.task_id}: a deterministic run samples one turn an attempt")

    async def _serve(self, member: Member, lanes: Sequence[Lane]) -> None:
        """Have a share sampled by `member`; what ends this ends the lanes."""
        try:
            await self._deliver(member, lanes)
        except BaseException as error:
            for lane in lanes:
                lane.arrived.put_nowait(error)
            if not isinstance(error, Exception):
                raise

    async def _deliver(self, member: Member, lanes: Sequence[Lane]) -> None:
        owners = {(lane.request.task_id, i): lane for lane in lanes for i in lane.request.sample_indices}
        requests = [lane.request for lane in lanes]
        while owners:
            async with self._fleet.lease(only=member):
                handle = member.handle
                try:
                    async for header, rollout in stream_samples(
                        member, "generate_batch", requests, timeout_s=self._timeout_s
                    ):
                        owner = owners.pop((header.task_id, header.sample_index), None)
                        if owner is not None:  # else it was delivered before the worker died
                            owner.arrived.put_nowait((header, rollout))
                    if owners:
                        raise InfrastructureError(f"{member.name} left {len(owners)} samples of a batch unfinished")
                except ACTOR_FAILURES as error:
                    self._fleet.report(member, handle, error)


def make_sampler(config: RunConfig, fleet: Fleet) -> Sampler:
    """The one that `deterministic` asks for."""
    kind = LockstepSampler if config.deterministic else StreamingSampler
    return kind(fleet, config.deadlines.generate_s)

"""Sampling: requests go to rollout workers, attempts come back one by one as they end."""

import dataclasses
from collections.abc import AsyncIterator, Sequence
from typing import Any, Protocol

from ray.exceptions import ObjectLostError, RayTaskError

from orchestrator.fleet import ACTOR_FAILURES, Fleet, Member
from orchestrator.waits import part_within, stream_within
from sdpo.errors import InfrastructureError
from sdpo.types import GenerationRequest, RolloutHeader, TurnRequest


class RolloutLost(InfrastructureError):
    """The tokens of an attempt's earlier turns are gone with the node that held them."""


class Sampler(Protocol):
    """Has requests sampled, whichever workers do it and however often one of them dies."""

    def expect(self, task_ids: Sequence[str]) -> None:
        """A batch begins: one request for each of `task_ids` follows, and nothing else before they have ended."""

    def sample(self, request: GenerationRequest) -> AsyncIterator[tuple[RolloutHeader, Any]]:
        """Yield (header, reference to the rollout) for every sample of the request, in the order in which they end."""

    async def extend(self, turn: TurnRequest, previous: Any) -> tuple[RolloutHeader, Any]:
        """(header, reference) of the attempt whose rollout `previous` refers to, with one more turn of the model.

        Raises `RolloutLost` where `previous` refers to nothing any more.
        """


class StreamingSampler:
    """Every request goes to the least loaded worker at once; a worker's load is the samples that it is asked for.

    What a worker that died had not finished is asked again of another one, with the same seeds.
    """

    def __init__(self, fleet: Fleet, timeout_s: float) -> None:
        self._fleet, self._timeout_s = fleet, timeout_s

    def expect(self, task_ids: Sequence[str]) -> None:
        """Requests do not wait for each other."""

    async def sample(self, request: GenerationRequest) -> AsyncIterator[tuple[RolloutHeader, Any]]:
        missing = dict(zip(request.sample_indices, request.seeds, strict=True))
        while missing:
            part = dataclasses.replace(request, sample_indices=tuple(missing), seeds=tuple(missing.values()))
            async with self._fleet.lease(weight=len(missing)) as member:
                handle = member.handle
                try:
                    async for header, rollout in stream_samples(member, "generate", part, timeout_s=self._timeout_s):
                        del missing[header.sample_index]
                        yield header, rollout
                    if missing:
                        raise InfrastructureError(f"{member.name} ended with samples {sorted(missing)} unfinished")
                except ACTOR_FAILURES as error:
                    self._fleet.report(member, handle, error)

    async def extend(self, turn: TurnRequest, previous: Any) -> tuple[RolloutHeader, Any]:
        while True:
            async with self._fleet.lease() as member:
                handle = member.handle
                try:
                    stream = stream_samples(member, "extend", turn, previous, timeout_s=self._timeout_s)
                    found = [sample async for sample in stream]
                    if len(found) != 1:
                        raise InfrastructureError(f"{member.name} gave {len(found)} turns for one")
                    return found[0]
                except ACTOR_FAILURES as error:
                    self._fleet.report(member, handle, error)
                except (ObjectLostError, RayTaskError) as error:
                    if not isinstance(error, ObjectLostError) and not isinstance(error.cause, ObjectLostError):
                        raise
                    attempt = f"task {turn.task_id}, attempt {turn.sample_index}"
                    raise RolloutLost(f"{attempt}: the tokens of its earlier turns are lost with their node") from None


async def stream_samples(
    member: Member, method: str, *arguments: Any, timeout_s: float
) -> AsyncIterator[tuple[RolloutHeader, Any]]:
    """Call a worker that yields header, rollout, header, rollout, …; only headers are fetched."""
    refs = getattr(member.handle, method).options(num_returns="streaming").remote(*arguments)
    header: RolloutHeader | None = None
    async for ref in stream_within(aiter(refs), actor=member.name, stage=method, timeout_s=timeout_s):
        if header is None:
            header = await part_within(ref, actor=member.name, stage=method, timeout_s=timeout_s)
        else:
            yield header, ref
            header = None

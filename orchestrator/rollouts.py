"""Sampling: requests go to rollout workers, attempts come back one by one as they end."""

import dataclasses
from collections.abc import AsyncIterator, Sequence
from typing import Any, Protocol

from ray.exceptions import RayActorError

from orchestrator.fleet import Fleet, Member
from orchestrator.waits import stream_within, within
from sdpo.errors import InfrastructureError
from sdpo.types import GenerationRequest, RolloutHeader


class Sampler(Protocol):
    """Has requests sampled, whichever workers do it and however often one of them dies."""

    def expect(self, task_ids: Sequence[str]) -> None:
        """A batch begins: one request for each of `task_ids` follows, and nothing else before they have ended."""

    def sample(self, request: GenerationRequest) -> AsyncIterator[tuple[RolloutHeader, Any]]:
        """Yield (header, reference to the rollout) for every sample of the request, in the order in which they end."""


class StreamingSampler:
    """Every request goes to the least loaded worker at once.

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
            async with self._fleet.lease() as member:
                handle = member.handle
                try:
                    async for header, rollout in stream_samples(member, "generate", part, self._timeout_s):
                        del missing[header.sample_index]
                        yield header, rollout
                    if missing:
                        raise InfrastructureError(f"{member.name} ended with samples {sorted(missing)} unfinished")
                except (RayActorError, InfrastructureError) as error:
                    self._fleet.report(member, handle, error)


async def stream_samples(
    member: Member, method: str, wanted: Any, timeout_s: float
) -> AsyncIterator[tuple[RolloutHeader, Any]]:
    """Call a worker that yields header, rollout, header, rollout, …; only headers are fetched."""
    refs = getattr(member.handle, method).options(num_returns="streaming").remote(wanted)
    header: RolloutHeader | None = None
    async for ref in stream_within(aiter(refs), actor=member.name, stage=method, timeout_s=timeout_s):
        if header is None:
            header = await within(ref, actor=member.name, stage=method, timeout_s=timeout_s)
        else:
            yield header, ref
            header = None

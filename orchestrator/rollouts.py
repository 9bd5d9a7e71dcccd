"""Sampling: groups go to rollout workers, attempts come back one by one as they end."""

import dataclasses
from collections.abc import AsyncIterator
from typing import Any

from ray.exceptions import RayActorError

from orchestrator.fleet import Fleet, Member
from orchestrator.waits import stream_within, within
from sdpo.errors import InfrastructureError
from sdpo.types import GenerationRequest, RolloutHeader


async def sample(
    fleet: Fleet, request: GenerationRequest, *, timeout_s: float
) -> AsyncIterator[tuple[RolloutHeader, Any]]:
    """Yield (header, reference to the rollout) for every sample of the request, in the order in which they end.

    What a worker that died had not finished is asked again of another one, with the same seeds.
    """
    missing = dict(zip(request.sample_indices, request.seeds, strict=True))
    while missing:
        part = dataclasses.replace(request, sample_indices=tuple(missing), seeds=tuple(missing.values()))
        async with fleet.lease() as member:
            handle = member.handle
            try:
                async for header, rollout in _stream(member, part, timeout_s):
                    del missing[header.sample_index]
                    yield header, rollout
                if missing:
                    raise InfrastructureError(f"{member.name} ended with samples {sorted(missing)} unfinished")
            except (RayActorError, InfrastructureError) as error:
                fleet.report(member, handle, error)


async def _stream(
    member: Member, request: GenerationRequest, timeout_s: float
) -> AsyncIterator[tuple[RolloutHeader, Any]]:
    """The worker yields header, rollout, header, rollout, …; only headers are fetched."""
    refs = member.handle.generate.options(num_returns="streaming").remote(request)
    header: RolloutHeader | None = None
    async for ref in stream_within(aiter(refs), actor=member.name, stage="generate", timeout_s=timeout_s):
        if header is None:
            header = await within(ref, actor=member.name, stage="generate", timeout_s=timeout_s)
        else:
            yield header, ref
            header = None

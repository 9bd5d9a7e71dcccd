"""Sampling: requests go to rollout workers, samples come back one by one as they finish."""

import dataclasses
from collections.abc import AsyncIterator, Sequence
from typing import Any, Protocol

from ray.exceptions import ObjectLostError, RayTaskError

from orchestrator.actors.fleet import ACTOR_FAILURES, Fleet, Member
from orchestrator.telemetry.deadlines import part_with_deadline, stream_with_deadline
from sdpo.errors import InfrastructureError
from sdpo.types import GenerationRequest, RolloutHeader, TurnRequest


class RolloutLost(InfrastructureError):
    """The tokens of an attempt's earlier turns were lost with the node that held them."""


class Sampler(Protocol):
    """Has requests sampled by any worker, again where a worker dies."""

    def expect(self, task_ids: Sequence[str]) -> None:
        """Begin a batch: exactly one request for each of `task_ids` follows, and no other before they have ended."""

    def sample(self, request: GenerationRequest) -> AsyncIterator[tuple[RolloutHeader, Any]]:
        """Yield (header, reference to the rollout) for every sample of the request, in the order in which they end."""

    async def extend(self, turn: TurnRequest, previous: Any) -> tuple[RolloutHeader, Any] | None:
        """Return (header, reference) of the attempt whose rollout `previous` refers to, with one more turn.

        None where the model has no further turn (a script that is over): the attempt ends as if its tokens were used
        up. Raises `RolloutLost` where `previous` refers to nothing any more.
        """


class StreamingSampler:
    """Sends every request to the least loaded worker at once; the load of a worker counts its samples.

    Samples that a worker had not finished when it died are requested from another one, with the same seeds.
    """

    def __init__(self, fleet: Fleet, timeout_s: float) -> None:
        self._fleet, self._timeout_s = fleet, timeout_s

    def expect(self, task_ids: Sequence[str]) -> None:
        """Do nothing: requests do not wait for each other."""

    async def sample(self, request: GenerationRequest) -> AsyncIterator[tuple[RolloutHeader, Any]]:
        missing = dict(zip(request.sample_indices, request.seeds, strict=True))
        while missing:
            part = dataclasses.replace(request, sample_indices=tuple(missing), seeds=tuple(missing.values()))
            async with self._fleet.checkout(weight=len(missing)) as member:
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
            async with self._fleet.checkout() as member:
                handle = member.handle
                try:
                    stream = stream_samples(member, "extend", turn, previous, timeout_s=self._timeout_s)
                    samples = [sample async for sample in stream]
                    if len(samples) != 1:
                        raise InfrastructureError(f"{member.name} returned {len(samples)} turns instead of one")
                    return samples[0]
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
    """Call a worker that yields header, rollout, header, rollout, …; fetch only the headers."""
    refs = getattr(member.handle, method).options(num_returns="streaming").remote(*arguments)
    header: RolloutHeader | None = None
    async for ref in stream_with_deadline(aiter(refs), actor=member.name, stage=method, timeout_s=timeout_s):
        if header is None:
            header = await part_with_deadline(ref, actor=member.name, stage=method, timeout_s=timeout_s)
        else:
            yield header, ref
            header = None

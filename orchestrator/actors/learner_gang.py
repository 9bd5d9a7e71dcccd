"""The learner: ranks in one placement group that start, train, publish and checkpoint together."""

import asyncio
from bisect import bisect_left
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import OutOfMemoryError, RayActorError, RayError, RayTaskError

from learner.messages import LearnerInfo, OldLogProbsRequest, TrainRequest
from learner.packing import plan_micro_batches, plan_mini_batches
from learner.rank import LearnerRank
from orchestrator.actors.spawn import spawn
from orchestrator.cluster.bundles import rank_bundles
from orchestrator.cluster.reservation import Reservation, options_of
from orchestrator.group import AttemptRecord
from orchestrator.telemetry.deadlines import stream_with_deadline, with_deadline
from orchestrator.telemetry.spans import calling
from sdpo.config import RunConfig
from sdpo.errors import LearnerDied, StageTimeout
from sdpo.types import Int32, Version
from sdpo.weights import Stream, WeightManifest

TORCH_ENV = {"env_vars": {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0"}}
"""Runtime environment of torch actors: waiting threads sleep, because several actors share the cores."""
DEATHS = (RayActorError, OutOfMemoryError)
"""Errors of a call whose actor is dead. Ray raises the second where its memory monitor ended the actor."""
DEATH_SHOWS_S = 10.0
"""Seconds within which a call to a dead rank fails; a rank that is alive may take longer to answer."""


class LearnerGang:
    """Calls all ranks at once and turns the death of a rank into `LearnerDied`."""

    def __init__(self, config: RunConfig, namespace: str) -> None:
        self._config, self._namespace = config, namespace
        self._reservation: Reservation | None = None
        self._ranks: list[Any] = []
        self._tokens_per_micro_batch = config.learner.tokens_per_micro_batch

    async def start(self, checkpoint: Path | str | None) -> LearnerInfo:
        """Reserve resources, start the ranks, connect them, and load the initial weights or `checkpoint`."""
        deadline = self._config.deadlines.start_s
        await self._reserved().wait_placed(deadline)
        self._ranks = [self._spawn(rank) for rank in range(self._config.placement.learner.ranks)]
        async with self._deaths():
            address, port = await with_deadline(
                self._ranks[0].address.remote(), actor="learner-rank0", stage="start", timeout_s=deadline
            )
            folder = None if checkpoint is None else str(checkpoint)
            infos = await self._all("setup", deadline, address, port, folder)
        info: LearnerInfo = infos[0]
        return info

    def bundle_of(self, index: int) -> tuple[Reservation, int]:
        """Return the reservation, and the bundle in it, that engine or teacher `index` shares with a rank."""
        return self._reserved(), index % self._config.placement.learner.ranks

    async def compute_old_log_probs(self, version: Version, attempts: Sequence[AttemptRecord]) -> list[Any]:
        """Return references to the attempts' `PolicyScores`, in order, from one forward of the policy at `version`."""
        plan = plan_micro_batches([a.num_tokens for a in attempts], len(self._ranks), self._tokens_per_micro_batch)
        receipts: list[Any] = []
        scores: dict[int, Any] = {}
        for rank, micro_batches in zip(self._ranks, plan, strict=True):
            mine = sorted(i for micro_batch in micro_batches for i in micro_batch)
            request = OldLogProbsRequest(version=version, micro_batches=_renumbered(micro_batches, mine))
            call = rank.compute_old_log_probs.options(num_returns=len(mine) + 1)
            answer = call.remote(request, *[attempts[i].rollout for i in mine])
            receipt, *refs = answer if mine else [answer]  # Ray returns a single value without a list
            receipts.append(receipt)
            scores |= dict(zip(mine, refs, strict=True))
        await self._gather(receipts, "compute_old_log_probs", self._config.deadlines.train_s)
        return [scores[i] for i in range(len(attempts))]

    async def train(self, batch_index: int, groups: Sequence[Sequence[AttemptRecord]]) -> dict[str, float]:
        """Take the optimizer steps of a batch, whose groups come in canonical order; empty ones keep their place.

        Raises `StageTimeout` after `deadlines.train_s` for each step.
        """
        attempts = [a for group in groups for a in group]
        numbers = iter(range(len(attempts)))
        plan = plan_mini_batches(
            [[next(numbers) for _ in group] for group in groups],
            [a.num_tokens for a in attempts],
            len(self._ranks),
            self._tokens_per_micro_batch,
            self._config.batch.mini_batch_tasks or self._config.batch.tasks,
        )
        calls = []
        for rank, mini_batches in zip(self._ranks, plan, strict=True):
            mine = sorted(i for mini_batch in mini_batches for micro_batch in mini_batch for i in micro_batch)
            request = TrainRequest(
                batch_index=batch_index,
                advantages=tuple(attempts[i].advantage for i in mine),
                attached=tuple(tuple(attempts[i].attached) for i in mine),
                mini_batches=tuple(_renumbered(mini_batch, mine) for mini_batch in mini_batches),
            )
            objects = [ref for i in mine for ref in (attempts[i].rollout, *attempts[i].attached.values())]
            calls.append(rank.train.remote(request, *objects))
        metrics: list[dict[str, float]]
        metrics = await self._gather(calls, "train", self._config.deadlines.train_s * len(plan[0]))
        return metrics[0]

    async def update_teacher(self) -> None:
        """Take one step of the teacher's average where it moves once per batch (paper, A.2)."""
        await self._all("update_teacher", self._config.deadlines.train_s)

    async def stream(self, stream: Stream, version: Version, probe_ids: Int32) -> AsyncIterator[Any]:
        """Yield references to rank 0's buckets, then to the manifest. All ranks gather; at most two items run ahead."""
        timeout_s = self._config.deadlines.weights_s
        generators = [
            rank.publish.options(num_returns="streaming", _generator_backpressure_num_objects=2).remote(
                stream, version, probe_ids
            )
            for rank in self._ranks
        ]
        async with self._deaths():
            with ExitStack() as calls:
                for name in self.ranks:
                    calls.enter_context(calling(name, "publish"))
                for rank, generator in enumerate(generators):
                    async for ref in stream_with_deadline(
                        aiter(generator), actor=f"learner-rank{rank}", stage=f"publish {stream}", timeout_s=timeout_s
                    ):
                        if rank == 0:
                            yield ref

    async def send_direct(
        self, version: Version, probe_ids: Int32, receivers: dict[str, Any]
    ) -> tuple[WeightManifest, dict[str, str]]:
        """Send the policy by vLLM's own transfer to rollout actors that are in an update.

        Returns the manifest, and the failures by receiver. A transfer that fails or does not end leaves the ranks out
        of step: then `LearnerDied` is raised.
        """
        timeout_s = 2 * self._config.deadlines.weights_s  # the handshake and the transfer
        answers: list[tuple[WeightManifest, dict[str, str]]]
        try:
            answers = await self._all("send_direct", timeout_s, version, probe_ids, receivers)
        except (StageTimeout, RayTaskError) as error:
            raise LearnerDied(f"learner: weights were not sent: {str(error).splitlines()[-1]}") from error
        return answers[0]

    async def require_alive(self) -> None:
        """Raise `LearnerDied` if a rank is dead. A living rank may be busy: its answer is awaited for 10 s only."""
        pings = [asyncio.ensure_future(_answer(rank.ping.remote())) for rank in self._ranks]
        answered, busy = await asyncio.wait(pings, timeout=DEATH_SHOWS_S, return_when=asyncio.FIRST_EXCEPTION)
        for ping in busy:
            ping.cancel()
        for ping in answered:
            if isinstance(ping.exception(), DEATHS):
                raise LearnerDied(f"learner: {str(ping.exception()).splitlines()[0]}") from ping.exception()

    async def save(self, folder: Path | str) -> None:
        """Save weights, optimizer, teacher and random state as a sharded checkpoint into `folder`."""
        await self._all("save", self._config.deadlines.checkpoint_s, str(folder))

    async def export(self, folder: Path | str, texts: Mapping[str, str]) -> None:
        """Export the policy as a Hugging Face folder, with the text files `texts` (by file name) beside it."""
        await self._all("export", self._config.deadlines.checkpoint_s, str(folder), dict(texts))

    @property
    def ranks(self) -> dict[str, Any]:
        """The ranks' actors by name."""
        return {f"learner-rank{index}": rank for index, rank in enumerate(self._ranks)}

    def kill(self) -> None:
        """End every rank and release its resources."""
        for rank in self._ranks:
            ray.kill(rank)
        if self._reservation is not None:
            self._reservation.release()

    def _reserved(self) -> Reservation:
        if self._reservation is None:
            labels = self._config.placement.learner.label_selector
            self._reservation = Reservation(f"{self._namespace}/learner", rank_bundles(self._config), labels)
        return self._reservation

    def _spawn(self, rank: int) -> Any:
        placement, strategy = self._config.placement.learner, self._reserved().strategy(rank)
        options = options_of(placement) | {"label_selector": None, "scheduling_strategy": strategy}
        arguments = self._config, rank, placement.ranks
        worker, name = ray.remote(LearnerRank), f"learner-rank{rank}"
        return spawn(worker, self._namespace, name, *arguments, runtime_env=TORCH_ENV, **options)

    async def _all(self, method: str, timeout_s: float, *arguments: Any) -> list[Any]:
        return await self._gather([getattr(r, method).remote(*arguments) for r in self._ranks], method, timeout_s)

    async def _gather(self, calls: Sequence[Any], stage: str, timeout_s: float) -> list[Any]:
        """Return the ranks' answers. Raises `LearnerDied` if a rank dies."""
        named = zip(self.ranks, calls, strict=True)
        async with self._deaths():
            return await asyncio.gather(
                *(with_deadline(call, actor=name, stage=stage, timeout_s=timeout_s) for name, call in named)
            )

    @asynccontextmanager
    async def _deaths(self) -> AsyncIterator[None]:
        """Raise `LearnerDied` instead of an error in the block that a rank's death explains.

        The death may show first as the error of another rank, whose collective broke, or as a deadline that passed:
        the ranks are asked who lives before such an error is raised.
        """
        try:
            yield
        except DEATHS as error:
            raise LearnerDied(f"learner: {str(error).splitlines()[0]}") from error
        except (RayError, StageTimeout) as error:
            await self.require_alive()
            if _is_broken_collective(error):
                raise LearnerDied(f"learner: ranks lost each other: {str(error).splitlines()[-1]}") from error
            raise


def _is_broken_collective(error: Exception) -> bool:
    """Return whether the process group failed: its members live but cannot talk any more, and only new ones can."""
    cause = error.cause if isinstance(error, RayTaskError) else error
    names = {kind.__name__ for kind in type(cause).__mro__}
    return not names.isdisjoint(("DistBackendError", "DistNetworkError")) or "gloo/transport" in str(cause)


async def _answer(ref: Any) -> Any:
    return await ref


def _renumbered(micro_batches: Sequence[Sequence[int]], mine: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """Replace indices into the batch by positions in `mine`, which is ascending."""
    return tuple(tuple(bisect_left(mine, i) for i in micro_batch) for micro_batch in micro_batches)

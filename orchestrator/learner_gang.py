"""The learner as one thing: ranks in a placement group that start, train, publish and checkpoint together."""

import asyncio
from bisect import bisect_left
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayActorError, RayTaskError

from learner.messages import LearnerInfo, RecallRequest, TrainRequest
from learner.packing import plan_micro_batches, plan_mini_batches
from learner.rank import LearnerRank
from orchestrator.bundles import rank_bundles
from orchestrator.group import AttemptRecord
from orchestrator.options import options_of
from orchestrator.room import Reservation
from orchestrator.spans import calling
from orchestrator.waits import stream_within, within
from sdpo.config import RunConfig
from sdpo.errors import LearnerDied, StageTimeout
from sdpo.types import Int32, Version
from sdpo.weights import Stream, WeightManifest

TORCH_ENV = {"env_vars": {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0"}}
"""Runtime environment of torch actors: threads that wait must sleep, since several actors share the cores."""


class LearnerGang:
    """Calls every rank at once and turns a rank's death into `LearnerDied`."""

    def __init__(self, config: RunConfig, namespace: str) -> None:
        self._config, self._namespace = config, namespace
        self._room: Reservation | None = None
        self._ranks: list[Any] = []
        self._tokens_per_micro_batch = config.learner.tokens_per_micro_batch

    async def start(self, checkpoint: Path | str | None) -> LearnerInfo:
        """Place the gang, join its ranks and load the initial weights or `checkpoint`."""
        deadline = self._config.deadlines.start_s
        await self._reserved().find_within(deadline)
        self._ranks = [self._spawn(rank) for rank in range(self._config.placement.learner.ranks)]
        with self._deaths():
            address, port = await within(
                self._ranks[0].address.remote(), actor="learner-rank0", stage="start", timeout_s=deadline
            )
            folder = None if checkpoint is None else str(checkpoint)
            infos = await self._all("setup", deadline, address, port, folder)
        info: LearnerInfo = infos[0]
        return info

    def place_of(self, index: int) -> tuple[Reservation, int]:
        """The reservation and the bundle in it where engine or teacher `index` lives with a rank."""
        return self._reserved(), index % self._config.placement.learner.ranks

    async def recall(self, version: Version, attempts: Sequence[AttemptRecord]) -> list[Any]:
        """References to the `PolicyScores` of the attempts, in order: one forward of the policy, `version`."""
        plan = plan_micro_batches([a.num_tokens for a in attempts], len(self._ranks), self._tokens_per_micro_batch)
        receipts: list[Any] = []
        found: dict[int, Any] = {}
        for rank, micro_batches in zip(self._ranks, plan, strict=True):
            mine = sorted(i for micro_batch in micro_batches for i in micro_batch)
            request = RecallRequest(version=version, micro_batches=_renumbered(micro_batches, mine))
            call = rank.recall.options(num_returns=len(mine) + 1)
            answer = call.remote(request, *[attempts[i].rollout for i in mine])
            receipt, *refs = answer if mine else [answer]  # Ray gives one return value bare
            receipts.append(receipt)
            found |= dict(zip(mine, refs, strict=True))
        with self._deaths():
            await self._gather(receipts, "recall", self._config.deadlines.train_s)
        return [found[i] for i in range(len(attempts))]

    async def train(self, step: int, groups: Sequence[Sequence[AttemptRecord]]) -> dict[str, float]:
        """The optimizer steps of a batch, whose groups come in canonical order; empty ones keep their place.

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
                step=step,
                advantages=tuple(attempts[i].advantage for i in mine),
                attached=tuple(tuple(attempts[i].attached) for i in mine),
                mini_batches=tuple(_renumbered(mini_batch, mine) for mini_batch in mini_batches),
            )
            objects = [ref for i in mine for ref in (attempts[i].rollout, *attempts[i].attached.values())]
            calls.append(rank.train.remote(request, *objects))
        with self._deaths():
            metrics = await self._gather(calls, "train", self._config.deadlines.train_s * len(plan[0]))
        first: dict[str, float] = metrics[0]
        return first

    async def update_teacher(self) -> None:
        """One step of the teacher's average where it moves once per batch (paper, A.2)."""
        with self._deaths():
            await self._all("update_teacher", self._config.deadlines.train_s)

    async def stream(self, stream: Stream, version: Version, probe_ids: Int32) -> AsyncIterator[Any]:
        """References of rank 0's buckets, then of the manifest. All ranks gather; at most two items run ahead."""
        timeout_s = self._config.deadlines.weights_s
        generators = [
            rank.publish.options(num_returns="streaming", _generator_backpressure_num_objects=2).remote(
                stream, version, probe_ids
            )
            for rank in self._ranks
        ]
        with self._deaths(), ExitStack() as calls:
            for name in self.ranks:
                calls.enter_context(calling(name, "publish"))
            for rank, generator in enumerate(generators):
                async for ref in stream_within(
                    aiter(generator), actor=f"learner-rank{rank}", stage=f"publish {stream}", timeout_s=timeout_s
                ):
                    if rank == 0:
                        yield ref

    async def send_direct(
        self, version: Version, probe_ids: Int32, receivers: dict[str, Any]
    ) -> tuple[WeightManifest, dict[str, str]]:
        """The policy by vLLM's own transfer, to rollout actors that are in an update; and what failed, by receiver.

        A transfer that does not end, or not well, leaves the ranks out of step: the gang is given up.
        """
        timeout_s = 2 * self._config.deadlines.weights_s  # the handshake and the transfer
        with self._deaths():
            try:
                answers = await self._all("send_direct", timeout_s, version, probe_ids, receivers)
            except (StageTimeout, RayTaskError) as error:
                raise LearnerDied(f"learner: weights were not sent: {str(error).splitlines()[-1]}") from error
        sent: tuple[WeightManifest, dict[str, str]] = answers[0]
        return sent

    async def require_alive(self) -> None:
        """Raises `LearnerDied` if a rank is gone."""
        with self._deaths():
            await self._all("ping", self._config.deadlines.weights_s)

    async def save(self, folder: Path | str) -> None:
        """A sharded checkpoint of weights, optimizer, teacher and random state into `folder`."""
        with self._deaths():
            await self._all("save", self._config.deadlines.checkpoint_s, str(folder))

    async def export(self, folder: Path | str, texts: Mapping[str, str]) -> None:
        """The policy as a Hugging Face folder, with `texts` by file name beside it."""
        with self._deaths():
            await self._all("export", self._config.deadlines.checkpoint_s, str(folder), dict(texts))

    @property
    def ranks(self) -> dict[str, Any]:
        """The ranks' actors by name."""
        return {f"learner-rank{index}": rank for index, rank in enumerate(self._ranks)}

    def kill(self) -> None:
        """End every rank and give the placement back."""
        for rank in self._ranks:
            ray.kill(rank)
        if self._room is not None:
            self._room.give_back()

    def _reserved(self) -> Reservation:
        if self._room is None:
            labels = self._config.placement.learner.label_selector
            self._room = Reservation(f"{self._namespace}/learner", rank_bundles(self._config), labels)
        return self._room

    def _spawn(self, rank: int) -> Any:
        placement, strategy = self._config.placement.learner, self._reserved().strategy(rank)
        return (
            ray.remote(LearnerRank)
            .options(
                name=f"learner-rank{rank}",
                namespace=self._namespace,
                runtime_env=TORCH_ENV,
                scheduling_strategy=strategy,
                **(options_of(placement) | {"label_selector": None}),
            )
            .remote(self._config, rank, placement.ranks)
        )

    async def _all(self, method: str, timeout_s: float, *arguments: Any) -> list[Any]:
        return await self._gather([getattr(r, method).remote(*arguments) for r in self._ranks], method, timeout_s)

    async def _gather(self, calls: Sequence[Any], stage: str, timeout_s: float) -> list[Any]:
        return await asyncio.gather(
            *(
                within(call, actor=f"learner-rank{rank}", stage=stage, timeout_s=timeout_s)
                for rank, call in enumerate(calls)
            )
        )

    @contextmanager
    def _deaths(self) -> Iterator[None]:
        try:
            yield
        except RayActorError as error:
            raise LearnerDied(f"learner: {str(error).splitlines()[0]}") from error


def _renumbered(micro_batches: Sequence[Sequence[int]], mine: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """Places in `mine`, which is ascending, instead of indices into the batch."""
    return tuple(tuple(bisect_left(mine, i) for i in micro_batch) for micro_batch in micro_batches)

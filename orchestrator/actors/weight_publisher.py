"""Weights from the learner to engines and teachers: two streams, each published once per rollout batch.

The orchestrator moves references only; the bytes go from the learner's node to the receivers' through the object
store, or by vLLM's own transfer. A receiver whose update failed is reported and must not serve.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ray.exceptions import OutOfMemoryError, RayActorError, RayError

from orchestrator.actors.fleet import Member
from orchestrator.actors.learner_gang import LearnerGang
from orchestrator.events import WeightsPublished, emit
from orchestrator.telemetry.deadlines import with_deadline
from sdpo.errors import StageTimeout, WeightSyncError
from sdpo.types import Int32, Version
from sdpo.weights import Stream, WeightAudit


@dataclass(slots=True)
class SyncReport:
    """Figures of one publication. `failed`: errors by receiver; the differences are the audit's largest, in nats."""

    seconds: float = 0.0
    num_bytes: int = 0
    mean_abs_diff: float = 0.0
    max_abs_diff: float = 0.0
    failed: dict[str, BaseException] = field(default_factory=dict)


class WeightPublisher:
    """Sends a stream to receivers. `versions`: the present version of each stream."""

    def __init__(
        self, gang: LearnerGang, probe_ids: Int32, timeout_s: float, is_direct: Callable[[Member], bool]
    ) -> None:
        """probe_ids int32 [P]: the prompt whose log-probs audit every update.

        is_direct(member): whether the member receives the policy by vLLM's own transfer, not as Ray objects.
        """
        self._gang, self._probe_ids, self._timeout_s, self._is_direct = gang, probe_ids, timeout_s, is_direct
        self.versions: dict[Stream, Version] = {}

    async def publish(self, stream: Stream, receivers: Sequence[Member]) -> SyncReport:
        """Send `stream`; one publication at a time. A receiver's failure is reported, not raised."""
        report, started = SyncReport(), time.monotonic()
        direct = {m.name: m.handle for m in receivers if stream == "policy" and self._is_direct(m)}
        others = {m.name: m.handle for m in receivers if m.name not in direct}
        audits = await self._directly(direct, report) if direct else []
        audits += await self._in_buckets(stream, others, report) if others else []
        if report.failed:  # a stream that its sender did not finish fails at the receivers, too
            await self._gang.require_alive()
        report.num_bytes = audits[0].num_bytes if audits else 0
        report.mean_abs_diff = max((a.mean_abs_diff for a in audits), default=0.0)
        report.max_abs_diff = max((a.max_abs_diff for a in audits), default=0.0)
        report.seconds = time.monotonic() - started
        arrived = [m.name for m in receivers if m.name not in report.failed]
        emit(
            WeightsPublished(
                stream=stream,
                batch_index=self.versions[stream].batch,
                receivers=arrived,
                num_failed=len(report.failed),
                seconds=report.seconds,
                num_bytes=report.num_bytes,
            )
        )
        return report

    async def _directly(self, alive: dict[str, Any], report: SyncReport) -> list[WeightAudit]:
        version = self.versions["policy"]
        await self._each(alive, report, "begin_update", version)
        if not alive:
            return []
        manifest, failed = await self._gang.send_direct(version, self._probe_ids, dict(alive))
        for name, failure in failed.items():
            report.failed[name] = WeightSyncError(f"{name}: {failure}")
            del alive[name]
        return await self._each(alive, report, "finish_update", manifest)

    async def _in_buckets(self, stream: Stream, alive: dict[str, Any], report: SyncReport) -> list[WeightAudit]:
        version = self.versions[stream]
        await self._each(alive, report, "begin_update", version)
        last: Any = None  # the manifest comes last
        async for ref in self._gang.stream(stream, version, self._probe_ids):
            if last is not None:
                await self._each(alive, report, "receive_bucket", last)
            last = ref
        return await self._each(alive, report, "finish_update", last)

    async def _each(self, alive: dict[str, Any], report: SyncReport, method: str, argument: Any) -> list[Any]:
        """Call `method` on all receivers; move those that fail from `alive` to the report."""

        async def call(name: str, handle: Any) -> Any:
            try:
                wait = getattr(handle, method).remote(argument)
                return await with_deadline(wait, actor=name, stage=method, timeout_s=self._timeout_s)
            except (RayActorError, OutOfMemoryError, WeightSyncError, StageTimeout) as error:
                report.failed[name] = error
                del alive[name]
                return None
            except RayError:  # perhaps the argument is the error of a rank whose peer died
                await self._gang.require_alive()
                raise

        answers = await asyncio.gather(*(call(name, handle) for name, handle in list(alive.items())))
        return [answer for answer in answers if answer is not None]

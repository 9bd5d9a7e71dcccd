"""The consumer's end of the buffer: the finished groups of one batch, in order."""

import asyncio

from orchestrator.events import GroupsQueued, emit
from orchestrator.failures import check_dropped_fraction
from orchestrator.group import Group
from orchestrator.telemetry.deadlines import with_deadline
from orchestrator.telemetry.spans import bind_context
from sdpo.config import RunConfig

GroupBuffer = asyncio.Queue[Group]
"""Holds finished groups between the producer and the loop."""


async def collect_batch(buffer: GroupBuffer, config: RunConfig, batch_index: int) -> list[Group]:
    """Wait for all groups of batch `batch_index`; return them by index.

    The caller's later calls and log lines name this batch's step until the next one is collected.
    Raises `InfrastructureError` if infrastructure lost more attempts than `env.max_dropped_fraction` allows.
    """
    bind_context(step=batch_index + 1)
    finished = [await _next_group(buffer, config) for _ in range(config.batch.tasks)]
    dropped = [attempt for group in finished for attempt in group.dropped]
    num_attempts = len(dropped) + sum(len(group.attempts) for group in finished)
    errors = [attempt.verdict.infrastructure_error for attempt in dropped]
    check_dropped_fraction(len(dropped) / max(1, num_attempts), config, errors=errors)
    return sorted(finished, key=lambda group: group.index)


async def _next_group(buffer: GroupBuffer, config: RunConfig) -> Group:
    """Return the next finished group.

    The deadline is a last resort: the waits of the producer end long before it and name the actor that is late.
    """
    deadlines = config.deadlines
    longest_s = deadlines.start_s + deadlines.weights_s + config.env.max_attempts * deadlines.environment_s
    longest_s += config.env.attempt_s
    longest_s += 2 * (deadlines.generate_s + deadlines.score_s)
    group = await with_deadline(buffer.get(), actor="producer", stage="the next group", timeout_s=longest_s)
    emit(GroupsQueued(num_groups=buffer.qsize()))
    return group

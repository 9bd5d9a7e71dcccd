"""Verdicts: an attempt goes to an env worker, and to another one when the first one breaks."""

from ray.exceptions import RayActorError

from orchestrator.fleet import Fleet
from orchestrator.waits import within
from sdpo.config import RunConfig
from sdpo.errors import StageTimeout
from sdpo.types import FinishReason, RolloutHeader, Task, Verdict


async def judge(fleet: Fleet, task: Task, header: RolloutHeader, config: RunConfig) -> Verdict:
    """The world's answer to one attempt.

    A broken container, runner or worker is tried again elsewhere; after `env.max_attempts` the verdict carries
    `infrastructure_error`, and the caller drops and counts the attempt.
    """
    avoid, verdict = None, _broken("never tried")
    timeout_s = config.deadlines.environment_s
    for _ in range(config.env.max_attempts):
        async with fleet.lease(avoid=avoid) as member:
            avoid = handle = member.handle
            try:
                wait = handle.judge.remote(task, header.text, header.finish_reason is FinishReason.LENGTH)
                verdict = await within(wait, actor=member.name, stage="judge", timeout_s=timeout_s)
            except (RayActorError, StageTimeout) as error:
                fleet.report(member, handle, error)
                verdict = _broken(str(error).splitlines()[0])
        if verdict.infrastructure_error is None:
            break
    return verdict


def _broken(reason: str) -> Verdict:
    return Verdict(reward=None, success=False, kind="infrastructure_error", infrastructure_error=reason)

"""The Ray that a run uses: the cluster it was submitted to, or one of its own on this machine."""

import logging
import math
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray

from orchestrator.admission import require_room
from orchestrator.bundles import bundles_of
from orchestrator.capacity_facts import gather_autoscaler, gather_cluster
from orchestrator.reach import require_answer
from rollout_workers.guardian import Guardian
from sdpo.config import RunConfig
from sdpo.errors import InfrastructureError
from sdpo.logs import VARIABLE
from sdpo.show import show_error

log = logging.getLogger(__name__)

GATHER_TIMEOUT_S = 30.0
LOCAL_STARTS = 3
TOO_SLOW = "timed out during startup"
"""What Ray says when a node of its own was not up within 30 s, a limit that cannot be set: busy machines need more."""
_QUIET: dict[str, Any] = {"configure_logging": False, "log_to_driver": False}


@contextmanager
def ray_session(config: RunConfig, *, has_learner: bool = True) -> Iterator[None]:
    """Join the cluster that RAY_ADDRESS names, or start Ray on this machine; with room for all of the run's actors.

    Ray that is started here offers CPUs and env slots for all of them; GPUs, memory, labels and custom resources are
    the machine's. Never joins what another run on this machine has started. What is started here ends with this
    process, even by SIGKILL: of Ray's own processes some would go on for minutes. `has_learner=False`: only sampling
    and judging. Raises `PlacementError` if the run can never have room there, `InfrastructureError` if Ray does not
    start or answer, or has no room within `deadlines.start_s`.
    """
    if address := os.environ.get("RAY_ADDRESS"):
        require_answer(address)
        logs = os.environ.get(VARIABLE)
        _init(runtime_env={"env_vars": {VARIABLE: logs}} if logs else None)
        try:
            _admit(config, f"the cluster at {address}", has_learner, gather_autoscaler(GATHER_TIMEOUT_S))
            yield
        finally:
            ray.shutdown()
        return
    guardian = Guardian(Path(tempfile.mkdtemp(prefix="sdpo-run-")))
    slots = config.placement.env.max_workers * config.placement.env.env_slots
    try:
        _init(
            tries=LOCAL_STARTS,
            address="local",
            num_cpus=max(os.cpu_count() or 1, math.ceil(config.num_cpus)),
            resources={"env_slot": slots} if slots else None,
            include_dashboard=False,
        )
        _admit(config, "Ray on this machine", has_learner, {})
        yield
    finally:
        ray.shutdown()
        guardian.release()


def _admit(config: RunConfig, where: str, has_learner: bool, autoscaler: Mapping[str, Any]) -> None:
    require_room(
        bundles_of(config, has_learner=has_learner),
        lambda: gather_cluster(GATHER_TIMEOUT_S, autoscaler),
        where,
        timeout_s=config.deadlines.start_s,
    )


def _init(tries: int = 1, **how: Any) -> None:
    logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)  # it tells everybody that a token is used
    try:
        ray.init(**how, **_QUIET)
    except Exception as error:  # Ray raises errors of many kinds here, some of them bare
        if tries > 1 and TOO_SLOW in str(error):
            log.warning("Ray took longer than its own limit to start on this machine; it is started again")
            ray.shutdown()
            _init(tries - 1, **how)
            return
        what = f"Ray at {os.environ['RAY_ADDRESS']}" if os.environ.get("RAY_ADDRESS") else "Ray on this machine"
        raise InfrastructureError(f"{what} did not start or answer: {show_error(error)}") from error

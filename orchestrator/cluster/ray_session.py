"""The Ray that a run uses: the cluster it was submitted to, or one of its own on this machine."""

import logging
import math
import os
import signal
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray

from orchestrator.cluster.admission import require_capacity
from orchestrator.cluster.bundles import bundles_of
from orchestrator.cluster.capacity_facts import gather_autoscaler, gather_cluster
from orchestrator.cluster.connect import init_ray, require_answer
from rollout_workers.process_reaper import ProcessReaper
from sdpo.config import RunConfig
from sdpo.errors import InfrastructureError
from sdpo.logs import VARIABLE

log = logging.getLogger(__name__)

GATHER_TIMEOUT_S = 30.0
LOCAL_STARTS = 3
TOO_SLOW = "timed out during startup"
"""Part of Ray's error where its own node was not up within 30 s. The limit cannot be set; busy machines need longer."""


@contextmanager
def ray_session(config: RunConfig, *, has_learner: bool = True) -> Iterator[None]:
    """Connect to the cluster that RAY_ADDRESS names, or start Ray on this machine, for the block.

    Before the block begins, all of the run's actors fit. Ray that is started here offers CPUs and env slots for all of
    them; GPUs, memory, labels and custom resources are the machine's. It never joins Ray that another run on this
    machine has started. All processes that are started here end with this process, even by SIGKILL, which some of
    Ray's own would survive for minutes. `has_learner=False`: the run only samples and judges. Raises `PlacementError`
    if the actors can never fit, `InfrastructureError` if Ray does not start or answer, or if they do not fit within
    `deadlines.start_s`.
    """
    if address := os.environ.get("RAY_ADDRESS"):
        require_answer(address)
        logs = os.environ.get(VARIABLE)
        init_ray(f"Ray at {address}", runtime_env={"env_vars": {VARIABLE: logs}} if logs else None)
        try:
            _admit(config, f"the cluster at {address}", has_learner, gather_autoscaler(GATHER_TIMEOUT_S))
            yield
        finally:
            ray.shutdown()
        return
    process_reaper = ProcessReaper(Path(tempfile.mkdtemp(prefix="sdpo-run-")))
    slots = config.placement.env.max_workers * config.placement.env.env_slots
    try:
        start_local_ray(
            num_cpus=max(os.cpu_count() or 1, math.ceil(config.num_cpus)),
            resources={"env_slot": slots} if slots else None,
            include_dashboard=False,
        )
        _admit(config, "Ray on this machine", has_learner, {})
        yield
    finally:
        ray.shutdown()
        process_reaper.release()


def _admit(config: RunConfig, where: str, has_learner: bool, autoscaler: Mapping[str, Any]) -> None:
    require_capacity(
        bundles_of(config, has_learner=has_learner),
        lambda: gather_cluster(GATHER_TIMEOUT_S, autoscaler),
        where,
        timeout_s=config.deadlines.start_s,
    )


def start_local_ray(**options: Any) -> None:
    """Start Ray on this machine, again where only Ray's own limit was too short."""
    for attempt in range(1, LOCAL_STARTS + 1):
        try:
            with _without_hangups():
                init_ray("Ray on this machine", address="local", **options)
            return
        except InfrastructureError as error:
            if attempt == LOCAL_STARTS or TOO_SLOW not in str(error.__cause__):
                raise
            log.warning("Ray took longer than its own limit to start on this machine; it is started again")
            ray.shutdown()


@contextmanager
def _without_hangups() -> Iterator[None]:
    """Inside, processes are started that ignore SIGHUP, if this is the main thread.

    A shell that ends sends SIGHUP to all processes of a job: the run hears it and writes its checkpoint, for which it
    needs Ray and the actors.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, signal.SIG_DFL if former is None else former)

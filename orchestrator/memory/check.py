"""Compares the memory plan of a run that begins with this machine or, in a cluster, with its nodes."""

import logging
import os
from subprocess import SubprocessError

from orchestrator.cluster.bundles import matches
from orchestrator.cluster.capacity import Cluster
from orchestrator.cluster.capacity_facts import gather_cluster
from orchestrator.inputs.gpus import gather_gpus
from orchestrator.inputs.machine import gather_memory
from orchestrator.memory.run_memory import Machine, RunMemory, warn
from sdpo.config import RunConfig
from sdpo.show import show_error

log = logging.getLogger(__name__)

GATHER_TIMEOUT_S = 30.0


def check_machine(memory: RunMemory | None) -> None:
    """Before Ray starts here: warn of what may not fit. Raises `ConfigError` for what cannot fit.

    None: the model's sizes are not known. A cluster places the actors itself: see `check_cluster`.
    """
    if memory is None or os.environ.get("RAY_ADDRESS"):
        return
    machine = gather_machine(memory.config)
    memory.require(machine)
    for line in memory.warnings(machine):
        warn(line)


def check_cluster(memory: RunMemory | None) -> None:
    """After the run has joined a cluster: warn of roles whose actors are larger than any node that may hold them.

    What Ray counts is no measurement of a node, so nothing is refused. A cluster that may grow is not judged.
    """
    if memory is None or not os.environ.get("RAY_ADDRESS"):
        return
    cluster = gather_cluster(GATHER_TIMEOUT_S)
    if not (cluster.grows_unseen or cluster.more):
        for line in memory.cluster_warnings(largest_nodes(memory.config, cluster)):
            log.warning("%s", line)


def largest_nodes(config: RunConfig, cluster: Cluster) -> dict[str, int]:
    """Return by role the memory in bytes of the largest node that its labels allow, by Ray's count."""
    largest = dict[str, int]()
    for role in config.demand:
        selector = config.placement.of(role).label_selector
        sizes = [
            int(node.total.get("memory", 0.0) + node.total.get("object_store_memory", 0.0))
            for node in cluster.nodes
            if matches(node.labels, selector)
        ]
        if any(sizes):
            largest[role] = max(sizes)
    return largest


def gather_machine(config: RunConfig) -> Machine:
    """Read this machine's memory, and its GPUs where the run asks for some."""
    facts = gather_memory()
    limit = facts.cgroup.memory_limit_bytes
    most = facts.total + facts.swap_total
    asks = any(request.get("GPU") for _, request in config.demand.values())
    try:
        gpus = gather_gpus() if asks else ()
    except (OSError, SubprocessError) as error:
        warn(f"the memory of the GPUs cannot be read, so it is not checked: {show_error(error)}")
        gpus = ()
    return Machine(most=most if limit is None else min(most, limit), free=facts.usable, gpus=gpus)

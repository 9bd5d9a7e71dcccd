"""What a Ray cluster and its nodes have, found out in a process of its own, which cannot hang the doctor."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.capacity import Cluster, Node, NodeType
from orchestrator.doctor.facts_ray import kill_tree
from sdpo.config import RunConfig

PROBE_TIMEOUT_S = 150.0
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeReport:
    """failure: why the node did not answer, then nothing else is known. shm: free bytes. folder: path, free, total
    (bytes) and writable of the run directories' file system, None where they are not in a file system. sandbox:
    (level, said, mend) of every finding, [] where no env worker would live.
    """

    failure: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    shm: int = 0
    folder: dict[str, Any] | None = None
    sandbox: list[tuple[str, str, str]] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterReport:
    """failure: why the cluster could not be asked, one line; then there is nothing else. nodes: by node id."""

    address: str
    failure: str = ""
    cluster: Cluster = field(default_factory=lambda: Cluster(nodes=()))
    nodes: dict[str, NodeReport] = field(default_factory=dict)


def gather_report(address: str, config: RunConfig | None) -> ClusterReport:
    """Joins the cluster at `address` and asks every node."""
    env = None if config is None else config.placement.env
    asked = {
        "dir": "" if config is None or "://" in config.dir else str(Path(config.dir).absolute()),
        "sandbox": None if config is None else config.env.sandbox.model_dump(mode="json"),
        "env": None if env is None else {"request": env.request, "labels": env.label_selector},
    }
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    process = subprocess.Popen(
        [sys.executable, "-m", "orchestrator.doctor.cluster_probe", address],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"} | {"PYTHONPATH": path},
        start_new_session=True,
    )
    try:
        said, errors = process.communicate(json.dumps(asked), timeout=PROBE_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        kill_tree(process.pid)
        process.communicate()
        return ClusterReport(address=address, failure=f"no answer within {PROBE_TIMEOUT_S:g} s")
    lines = [line.removeprefix("found ") for line in said.splitlines() if line.startswith("found ")]
    if process.returncode or not lines:
        last = [line.strip() for line in errors.splitlines() if line.strip()]
        why = last[-1] if last else f"exit code {process.returncode}"
        return ClusterReport(address=address, failure=why.removeprefix("sdpo.errors.InfrastructureError: ")[:400])
    return _report(address, json.loads(lines[-1]))


def _report(address: str, found: dict[str, Any]) -> ClusterReport:
    cluster = found["cluster"]
    return ClusterReport(
        address=address,
        cluster=Cluster(
            nodes=tuple(Node(**node) for node in cluster["nodes"]),
            types=tuple(NodeType(**kind) for kind in cluster["types"]),
            more=cluster["more"],
            grows_unseen=cluster["grows_unseen"],
            holders=tuple(cluster["holders"]),
        ),
        nodes={name: NodeReport(**node) for name, node in found["nodes"].items()},
    )

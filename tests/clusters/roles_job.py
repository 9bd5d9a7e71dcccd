"""A job that has every role of a cluster looked up: prints the node of each as JSON, on one line."""

import json
import socket
from typing import Any

import ray


@ray.remote(num_cpus=0)
def look() -> dict[str, Any]:
    """The node that this runs on."""
    own_id = ray.get_runtime_context().get_node_id()
    node = next(n for n in ray.nodes() if n["NodeID"] == own_id)
    offers = {key: amount for key, amount in node["Resources"].items() if key in ("CPU", "GPU", "env_slot")}
    return {"host": socket.gethostname(), "role": node["Labels"]["sdpo-role"], "offers": offers}


def main() -> None:
    """Waits at most two minutes for a node of each role."""
    ray.init(log_to_driver=False)
    asked = {role: look.options(label_selector={"sdpo-role": role}).remote() for role in ("head", "learner", "env")}
    asked["env_slot"] = look.options(resources={"env_slot": 1}).remote()
    print(json.dumps({what: ray.get(answer, timeout=120) for what, answer in asked.items()}), flush=True)


if __name__ == "__main__":
    main()

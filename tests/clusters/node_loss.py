"""Two env workers run on one node, which dies in the middle of their work; later another node is added."""

import asyncio
import json
import time
from typing import Any

import ray
from ray.cluster_utils import Cluster

from sdpo.config import EnvConfig, EnvPlacement
from tests.clusters.attempts import judged, opened, until

CONFIG = EnvConfig(max_attempts=4)
PLACEMENT = EnvPlacement(min_workers=2, max_workers=2, env_slots=1)
NUM_ATTEMPTS = 24


async def lose_a_node(cluster: Cluster, env_node: Any) -> dict[str, Any]:
    """Return what happened, for the test."""
    async with opened(CONFIG, PLACEMENT) as pool:
        running = asyncio.create_task(judged(pool, CONFIG, NUM_ATTEMPTS))
        await asyncio.sleep(1.0)
        cluster.remove_node(env_node, allow_graceful=False)
        lost_s = time.monotonic()
        await until(lambda: pool.states["pending"] == 2, 20)
        cluster.add_node(num_cpus=2, resources={"env_slot": 2})  # has to be in the main thread
        verdicts = await running
        return {
            "passed": sum(v.success for v in verdicts),
            "broken": [v.infrastructure_error for v in verdicts if v.infrastructure_error is not None],
            "replaced": [m.starts for m in pool.members],
            "counted": [m.restarts for m in pool.members],
            "states": pool.states,
            "recovered_s": time.monotonic() - lost_s,
        }


def main() -> None:
    """Print what happened as JSON on the last line."""
    head = {"num_cpus": 1, "include_dashboard": False, "_system_config": {"health_check_period_ms": 500}}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        ray.init(address=cluster.address, log_to_driver=False)
        env_node = cluster.add_node(num_cpus=2, resources={"env_slot": 2})
        cluster.wait_for_nodes(60)
        print(json.dumps(asyncio.run(lose_a_node(cluster, env_node))), flush=True)
    finally:
        ray.shutdown()
        cluster.shutdown()


if __name__ == "__main__":
    main()

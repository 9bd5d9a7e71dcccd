"""A head without env slots, under Ray's autoscaler with its fake provider: env workers add a node and release it."""

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import ray

from orchestrator.cluster.capacity_facts import gather_cluster
from sdpo.config import EnvConfig, EnvPlacement
from tests.clusters.attempts import judged, opened, until
from tests.clusters.fake_head import MIB, joined_head, provider

CONFIG = EnvConfig(target_wait_s=0.3, idle_s=2.0)
PLACEMENT = EnvPlacement(min_workers=1, max_workers=3, env_slots=1)


def cluster_config(gcs_address: str, _: Path) -> dict[str, Any]:
    """One type of env node, with CPUs and `env_slot` and nothing else, at most two of them."""
    env_node = {"resources": {"CPU": 1, "env_slot": 2, "object_store_memory": 100 * MIB}, "node_config": {}}
    return provider(gcs_address) | {
        "max_workers": 2,
        "upscaling_speed": 1.0,
        "head_node_type": "ray.head.default",
        "available_node_types": {
            "ray.head.default": {"resources": {"CPU": 1}, "node_config": {}, "max_workers": 0},
            "env": {**env_node, "min_workers": 0, "max_workers": 2},
        },
    }


def env_nodes() -> list[dict[str, Any]]:
    """Return the nodes that are up and offer env slots."""
    return [n for n in ray.nodes() if n["Alive"] and n["Resources"].get("env_slot")]


async def come_and_go() -> dict[str, Any]:
    """Return what happened, for the test."""
    assert not env_nodes()
    known = gather_cluster(60)
    began_s = time.monotonic()
    async with opened(CONFIG, PLACEMENT) as pool:
        first_s, first = time.monotonic() - began_s, len(env_nodes())
        resources = [sorted(k for k in n["Resources"] if k in ("CPU", "GPU", "env_slot")) for n in env_nodes()]
        work = asyncio.create_task(judged(pool, CONFIG, 60))
        await until(lambda: pool.states["serving"] >= 2, 60)
        verdicts = await work
        seen = gather_cluster(60)
        await until(lambda: pool.states == {"serving": 1, "pending": 0, "draining": 0}, 30)
    stopped_s = time.monotonic()
    await until(lambda: not env_nodes(), 60)
    return {
        "may_come": {kind.name: kind.more for kind in known.types},
        "came": sum(node.type == "env" for node in seen.nodes),
        "still_may_come": sum(kind.more for kind in seen.types),
        "first_s": first_s,
        "first_nodes": first,
        "resources": resources,
        "passed": sum(v.success for v in verdicts),
        "gone_s": time.monotonic() - stopped_s,
    }


def main() -> None:
    """Print what happened as JSON on the last line."""
    with joined_head(cluster_config):
        print(json.dumps(asyncio.run(come_and_go())), flush=True)


if __name__ == "__main__":
    main()

"""A head without env slots, under Ray's autoscaler with its fake provider: env workers bring a node, and let it go."""

import asyncio
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray._private.services import get_node_ip_address

from orchestrator.capacity_facts import gather_cluster
from rollout_workers.guardian import Guardian
from sdpo.config import EnvConfig, EnvPlacement
from tests.integration.clusters.attempts import judged, opened, until

CONFIG = EnvConfig(target_wait_s=0.3, idle_s=2.0)
PLACEMENT = EnvPlacement(min_workers=1, max_workers=3, env_slots=1)
HEAD_ID = "f" * 51 + "00000"
MIB = 2**20


def cluster_config(gcs_address: str) -> dict[str, Any]:
    """One type of env node, with CPUs and `env_slot` and nothing else, at most two of them; idle ones go after 6 s.

    The nodes share this machine's address, so that the autoscaler has to know them by their ids
    (`use_node_id_as_ip`): otherwise it takes every node for a stranger and never ends one.
    """
    env_node = {"resources": {"CPU": 1, "env_slot": 2, "object_store_memory": 100 * MIB}, "node_config": {}}
    return {
        "cluster_name": "fake",
        "max_workers": 2,
        "idle_timeout_minutes": 0.1,
        "upscaling_speed": 1.0,
        "provider": {
            "type": "fake_multinode",
            "gcs_address": gcs_address,
            "head_node_id": HEAD_ID,
            "use_node_id_as_ip": True,
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
            "foreground_node_launch": True,
            "worker_liveness_check": False,
        },
        "auth": {},
        "head_node_type": "ray.head.default",
        "available_node_types": {
            "ray.head.default": {"resources": {"CPU": 1}, "node_config": {}, "max_workers": 0},
            "env": {**env_node, "min_workers": 0, "max_workers": 2},
        },
        **{f"{stage}_commands": [] for stage in ("initialization", "setup", "head_setup", "worker_setup")},
        **{f"{kind}_start_ray_commands": [] for kind in ("head", "worker")},
        "file_mounts": {},
        "cluster_synced_files": [],
        "file_mounts_sync_continuously": False,
        "rsync_exclude": [],
        "rsync_filter": [],
    }


@contextmanager
def autoscaled_cluster(folder: Path) -> Iterator[str]:
    """The address of a cluster of one head, whose processes all end with this one."""
    guardian = Guardian(folder)
    with socket.socket() as free:
        free.bind(("", 0))
        port = free.getsockname()[1]
    host = get_node_ip_address()
    (folder / "cluster.json").write_text(json.dumps(cluster_config(f"{host}:{port}")))
    options = {
        "port": port,
        "num-cpus": 1,
        "object-store-memory": 150 * MIB,
        "include-dashboard": "false",
        "autoscaling-config": folder / "cluster.json",
        "temp-dir": folder,
    }
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--disable-usage-stats"]
    command += [f"--{key}={value}" for key, value in options.items()]
    environment = {
        "RAY_FAKE_CLUSTER": "1",
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD_ID,
        "RAY_NODE_TYPE_NAME": "ray.head.default",
    }
    with (folder / "head.log").open("w") as log:
        head = subprocess.Popen(command, env=os.environ | environment, stdout=log, stderr=log)
        try:
            yield f"{host}:{port}"
        finally:
            head.terminate()
            head.wait(30)
            guardian.release()


def env_nodes() -> list[dict[str, Any]]:
    """Nodes that are up and offer env slots."""
    return [n for n in ray.nodes() if n["Alive"] and n["Resources"].get("env_slot")]


async def come_and_go() -> dict[str, Any]:
    """What happened, for the test."""
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


def connect(address: str) -> None:
    """Raises what Ray says after a minute without an answer."""
    ends_s = time.monotonic() + 60
    while True:
        try:
            ray.init(address=address, log_to_driver=False)
            return
        except (ConnectionError, RuntimeError, ValueError):
            if time.monotonic() > ends_s:
                raise
            time.sleep(0.5)


def main() -> None:
    """Prints what happened as JSON on the last line."""
    with autoscaled_cluster(Path(tempfile.mkdtemp(prefix="sdpo-tests-"))) as address:
        connect(address)
        try:
            print(json.dumps(asyncio.run(come_and_go())), flush=True)
        finally:
            ray.shutdown()


if __name__ == "__main__":
    main()

"""deploy/ray/cluster.yaml under Ray's fake provider, whose nodes are processes of this machine, and a run on it.

The node types are the file's own: names, labels, kinds of resources, fewest nodes. Only provider, ssh and commands are
exchanged, and amounts and counts made as small as this machine.
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import ray
import yaml
from ray._private.services import get_node_ip_address

from rollout_workers.guardian import Guardian
from tests.integration.clusters.autoscaled import HEAD_ID, MIB, cluster_config, connect
from tests.run_fixtures import ROOT, RUN_FILE, command, small

AMOUNTS = {"CPU": 2, "GPU": 1, "env_slot": 2}
MAX_NODES = 2
# What the fake provider has instead of machines, ssh and installation.
EXCHANGED = [
    "cluster_name",
    "provider",
    "auth",
    "idle_timeout_minutes",
    "initialization_commands",
    "setup_commands",
    "head_setup_commands",
    "worker_setup_commands",
    "head_start_ray_commands",
    "worker_start_ray_commands",
    "file_mounts",
    "cluster_synced_files",
    "file_mounts_sync_continuously",
    "rsync_exclude",
    "rsync_filter",
]


def fake_cloud(gcs_address: str) -> dict[str, Any]:
    """cluster.yaml with the fake provider; idle nodes go after 6 s. Autoscaler v2 knows that provider as external."""
    config: dict[str, Any] = yaml.safe_load((ROOT / "deploy/ray/cluster.yaml").read_text())
    fake = cluster_config(gcs_address)
    config |= {key: fake[key] for key in EXCHANGED}
    module = "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider"
    config["provider"] |= {"type": "external", "module": module}
    head = config["head_node_type"]
    for name, kind in config["available_node_types"].items():
        kind["resources"] = {key: min(amount, AMOUNTS[key]) for key, amount in kind["resources"].items()}
        kind["node_config"] = {}
        kind.pop("worker_setup_commands", None)
        if name != head:
            kind["resources"]["object_store_memory"] = 100 * MIB
            kind["max_workers"] = MAX_NODES
    return config


@contextmanager
def started_cloud(folder: Path) -> Iterator[str]:
    """The address of the head, started under autoscaler v2 as `ray up` does; all of its processes end with this one."""
    guardian = Guardian(folder)
    with socket.socket() as free:
        free.bind(("", 0))
        port = free.getsockname()[1]
    address = f"{get_node_ip_address()}:{port}"
    config = fake_cloud(address)
    (folder / "cluster.json").write_text(json.dumps(config))
    head = config["available_node_types"][config["head_node_type"]]
    options = {
        "port": port,
        "num-cpus": head["resources"]["CPU"],
        "labels": ",".join(f"{key}={value}" for key, value in head["labels"].items()),
        "object-store-memory": 150 * MIB,
        "include-dashboard": "false",
        "autoscaling-config": folder / "cluster.json",
        "temp-dir": folder,
    }
    words = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--disable-usage-stats"]
    words += [f"--{key}={value}" for key, value in options.items()]
    environment = {
        "RAY_FAKE_CLUSTER": "1",
        "RAY_enable_autoscaler_v2": "1",
        "RAY_CLOUD_INSTANCE_ID": HEAD_ID,
        "RAY_NODE_TYPE_NAME": config["head_node_type"],
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD_ID,
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
    }
    with (folder / "head.log").open("w") as log:
        process = subprocess.Popen(words, env=os.environ | environment, stdout=log, stderr=log)
        try:
            yield address
        finally:
            process.terminate()
            process.wait(30)
            guardian.release()


@contextmanager
def joined_cloud(tries: int = 3) -> Iterator[tuple[str, Path]]:
    """The head's address and folder. `ray start` gives up after 30 s, which a busy machine may need: then again."""
    folder = Path(tempfile.mkdtemp(prefix="sdpo-tests-"))
    with ExitStack() as stack:
        address = stack.enter_context(started_cloud(folder))
        stack.callback(ray.shutdown)
        try:
            connect(address)
        except (ConnectionError, RuntimeError, ValueError):
            if tries == 1:
                raise
        else:
            yield address, folder
            return
    with joined_cloud(tries - 1) as cloud:
        yield cloud


class Watch:
    """Writes down, four times a second, how many nodes of each role are up."""

    def __init__(self) -> None:
        self.rows: list[tuple[float, dict[str, int]]] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._go_on, daemon=True)
        self._thread.start()

    def _go_on(self) -> None:
        while not self._ended.wait(0.25):
            self.rows.append((time.monotonic(), nodes()))

    def end(self) -> None:
        self._ended.set()
        self._thread.join(10)

    def most(self, role: str) -> int:
        """The most nodes of the role at any time."""
        return max(counts.get(role, 0) for _, counts in self.rows)


def nodes() -> dict[str, int]:
    """Nodes that are up, by role."""
    roles = [node["Labels"].get("sdpo-role") for node in ray.nodes() if node["Alive"]]
    return {role: roles.count(role) for role in set(roles)}


def wait_for(wanted: dict[str, int], timeout_s: float) -> float:
    """Seconds until exactly these nodes are up; raises `TimeoutError` with those that are."""
    began_s = time.monotonic()
    while (found := nodes()) != wanted:
        if time.monotonic() - began_s > timeout_s:
            raise TimeoutError(f"nodes after {timeout_s:g} s: {found}, wanted: {wanted}")
        time.sleep(0.25)
    return time.monotonic() - began_s


class Slot:
    """What an env worker asks for."""

    def serves(self) -> str:
        """The node's id."""
        return str(ray.get_runtime_context().get_node_id())


def grow_and_shrink() -> dict[str, float]:
    """One env node has two slots: seconds until a third env worker, with a node of its own, serves; until that goes."""
    worker: Any = ray.remote(num_cpus=0.25, resources={"env_slot": 1})(Slot)
    first = [worker.remote() for _ in range(2)]
    ray.get([slot.serves.remote() for slot in first], timeout=60)
    began_s = time.monotonic()
    third = worker.remote()
    ray.get(third.serves.remote(), timeout=120)
    up_s = time.monotonic() - began_s
    began_s = time.monotonic()
    for slot in (*first, third):
        ray.kill(slot)
    wait_for({"head": 1, "env": 1}, 120)
    return {"serving_s": up_s, "back_s": time.monotonic() - began_s}


def train(address: str, folder: Path) -> dict[str, Any]:
    """A whole small run: learner and teacher on gpu.learner, the engine on gpu.rollout, env workers on cpu.env."""
    changes = {
        "steps": 2,
        "placement__learner__label_selector": "{sdpo-role: learner}",
        "placement__teacher__label_selector": "{sdpo-role: learner}",
        "placement__rollout__label_selector": "{sdpo-role: rollout}",
        "placement__env__env_slots": 1,
        "placement__env__min_workers": 3,
        "placement__env__max_workers": 3,
    }
    words = command(RUN_FILE, *small(folder, **changes))
    began_s = time.monotonic()
    watch = Watch()
    with (folder / "run.log").open("w") as log:
        code = subprocess.run(
            words, cwd=ROOT, env=os.environ | {"RAY_ADDRESS": address}, stdout=log, stderr=log, timeout=400, check=False
        ).returncode
    run_s = time.monotonic() - began_s
    back_s = wait_for({"head": 1, "env": 1}, 120)
    watch.end()
    return {
        "code": code,
        "said": (folder / "run.log").read_text()[-3000:],
        "run_s": run_s,
        "run_back_s": back_s,
        "most": {role: watch.most(role) for role in ("head", "learner", "rollout", "env")},
    }


def main() -> None:
    """Prints what happened as JSON on the last line."""
    with joined_cloud() as (address, folder):
        story: dict[str, Any] = {"first_s": wait_for({"head": 1, "env": 1}, 120)}
        story |= grow_and_shrink()
        story |= train(address, folder)
    print(json.dumps(story), flush=True)


if __name__ == "__main__":
    main()

"""deploy/ray/cluster.yaml under Ray's fake provider, whose nodes are processes of this machine, and a run on it.

The node types are the file's own: names, labels, kinds of resources, fewest nodes. Only provider, ssh and commands are
exchanged, and amounts and counts made as small as this machine.
"""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import ray
import yaml

from orchestrator.run_dir.metrics_log import read_metrics
from tests.clusters import own_folders
from tests.clusters.fake_head import HEAD_ID, MIB, joined_head, provider
from tests.fixtures.ports import free_ports
from tests.fixtures.run import ROOT, RUN_FILE, small

AMOUNTS = {"CPU": 2, "GPU": 1, "env_slot": 2}
MAX_NODES = 2
PORTS = ("dashboard_port", "dashboard_agent_listen_port", "dashboard_agent_grpc_port", "metrics_export_port")


def fake_cloud(gcs_address: str, folder: Path) -> dict[str, Any]:
    """cluster.yaml with the fake provider, which autoscaler v2 knows as external."""
    config: dict[str, Any] = yaml.safe_load((ROOT / "deploy/ray/cluster.yaml").read_text())
    config |= provider(gcs_address)
    shutil.copy(own_folders.__file__, folder)
    config["provider"] |= {"type": "external", "module": "own_folders.OwnFolders", "folder": str(folder)}
    head = config["head_node_type"]
    for name, kind in config["available_node_types"].items():
        kind["resources"] = {key: min(amount, AMOUNTS[key]) for key, amount in kind["resources"].items()}
        kind["node_config"] = {}
        kind.pop("worker_setup_commands", None)
        if name != head:
            kind["resources"]["object_store_memory"] = 100 * MIB
            kind["max_workers"] = MAX_NODES
    return config


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


class Jobs:
    """Of the cluster, sent to its dashboard."""

    def __init__(self, dashboard: str) -> None:
        self._where = ["--address", dashboard]

    def round_trip(self) -> float:
        """Seconds from `ray job submit` of a job that does nothing, with the upload of this tree, to its end."""
        began_s = time.monotonic()
        words = [sys.executable, "-m", "ray.scripts.scripts", "job", "submit", *self._where, "--working-dir", "."]
        subprocess.run([*words, "--", "true"], cwd=ROOT, capture_output=True, timeout=200, check=True)
        return time.monotonic() - began_s

    def train(self, folder: Path, log: Path) -> int:
        """The exit code of a whole small run: learner and teacher on gpu.learner, the engine on gpu.rollout.

        Two env workers have room on the first node of cpu.env; attempts that wait ask for a third, and so for a node.
        """
        changes = {
            "steps": 12,
            "placement__learner__label_selector": "{sdpo-role: learner}",
            "placement__teacher__label_selector": "{sdpo-role: learner}",
            "placement__rollout__label_selector": "{sdpo-role: rollout}",
            "placement__env__env_slots": 1,
            "placement__env__min_workers": 2,
            "placement__env__max_workers": 3,
            "env__target_wait_s": 0.001,
        }
        words = [sys.executable, "deploy/submit.py", *self._where, RUN_FILE, *small(folder, **changes)]
        with log.open("w") as output:
            return subprocess.run(words, cwd=ROOT, stdout=output, stderr=output, timeout=500, check=False).returncode


def run_as_job(jobs: Jobs, folder: Path) -> dict[str, Any]:
    """What came and went for the run, and what it says of itself."""
    began_s = time.monotonic()
    watch = Watch()
    code = jobs.train(folder / "runs", folder / "run.log")
    run_s = time.monotonic() - began_s
    back_s = wait_for({"head": 1, "env": 1}, 120)
    watch.end()
    rows = read_metrics(folder / "runs" / "run" / "metrics.jsonl")
    return {
        "code": code,
        "said": (folder / "run.log").read_text()[-3000:],
        "run_s": run_s,
        "run_back_s": back_s,
        "most": {role: watch.most(role) for role in ("head", "learner", "rollout", "env")},
        "env_workers": [row["time/env_pool_size"] for row in rows if "time/env_pool_size" in row],
    }


def main() -> None:
    """Prints what happened as JSON on the last line."""
    ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
    dashboard = {"include_dashboard": "true", "dashboard_host": "127.0.0.1"}
    variables = {"RAY_enable_autoscaler_v2": "1", "RAY_CLOUD_INSTANCE_ID": HEAD_ID}
    variables["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # jobs say `python`
    with joined_head(fake_cloud, variables, **dashboard, **ports) as (_, folder):
        jobs = Jobs(f"http://127.0.0.1:{ports['dashboard_port']}")
        story: dict[str, Any] = {"first_s": wait_for({"head": 1, "env": 1}, 120)}
        story |= grow_and_shrink()
        story["round_trip_s"] = jobs.round_trip()
        story |= run_as_job(jobs, folder)
    print(json.dumps(story), flush=True)


if __name__ == "__main__":
    main()

"""A Ray head under the autoscaler with Ray's fake provider, whose nodes are processes of this machine."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import ray
from ray._private.services import get_node_ip_address

from rollout_workers.process_reaper import ProcessReaper
from tests.fixtures.ports import free_ports

HEAD_ID = "f" * 51 + "00000"
MIB = 2**20
STARTS = 3


def provider(gcs_address: str) -> dict[str, Any]:
    """What a cluster file has instead of a cloud, ssh and installation; idle nodes go after 6 s.

    The nodes share this machine's address, so that the autoscaler has to know them by their ids
    (`use_node_id_as_ip`): otherwise it takes every node for a stranger and never ends one.
    """
    return {
        "cluster_name": "fake",
        "idle_timeout_minutes": 0.1,
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
        **{f"{stage}_commands": [] for stage in ("initialization", "setup", "head_setup", "worker_setup")},
        **{f"{kind}_start_ray_commands": [] for kind in ("head", "worker")},
        "file_mounts": {},
        "cluster_synced_files": [],
        "file_mounts_sync_continuously": False,
        "rsync_exclude": [],
        "rsync_filter": [],
    }


@contextmanager
def joined_head(
    configure: Callable[[str, Path], dict[str, Any]], variables: dict[str, str] | None = None, **options: Any
) -> Iterator[tuple[str, Path]]:
    """Inside, this process has joined the cluster of one head; yields the head's address and folder.

    `configure` makes the cluster file of the head's address and folder; `options` are more of `ray start`, which gives
    up after 30 s: then again, since a busy machine may need that. All processes end with this one.
    """
    with ExitStack() as stack:
        for tries_left in range(STARTS - 1, -1, -1):
            one = stack.enter_context(ExitStack())
            address, folder = one.enter_context(_started(configure, variables or {}, options))
            one.callback(ray.shutdown)
            try:
                _connect(address)
                break
            except (ConnectionError, RuntimeError, ValueError):
                if not tries_left:
                    raise
                one.close()
        yield address, folder


@contextmanager
def _started(
    configure: Callable[[str, Path], dict[str, Any]], variables: dict[str, str], options: dict[str, Any]
) -> Iterator[tuple[str, Path]]:
    folder = Path(tempfile.mkdtemp(prefix="sdpo-tests-"))
    process_reaper = ProcessReaper(folder)
    (port,) = free_ports(1)
    address = f"{get_node_ip_address()}:{port}"
    config = configure(address, folder)
    (folder / "cluster.json").write_text(json.dumps(config))
    head = config["available_node_types"][config["head_node_type"]]
    settings = {
        "port": port,
        "num-cpus": head["resources"]["CPU"],
        "labels": ",".join(f"{key}={value}" for key, value in head.get("labels", {}).items()),
        "object-store-memory": 150 * MIB,
        "include-dashboard": "false",
        "autoscaling-config": folder / "cluster.json",
        "temp-dir": folder,
    } | {name.replace("_", "-"): value for name, value in options.items()}
    words = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--disable-usage-stats"]
    words += [f"--{name}={value}" for name, value in settings.items()]
    environment = {
        "RAY_FAKE_CLUSTER": "1",
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD_ID,
        "RAY_NODE_TYPE_NAME": config["head_node_type"],
        "PYTHONPATH": str(folder),  # where a provider of one's own is found
    }
    with (folder / "head.log").open("w") as log:
        process = subprocess.Popen(words, env=os.environ | environment | variables, stdout=log, stderr=log)
        try:
            yield address, folder
        finally:
            process.terminate()
            process.wait(30)
            process_reaper.release()


def _connect(address: str) -> None:
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

"""deploy/ray/onprem.yaml by `ray up`, over ssh, on three machines with processes and a network of their own."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.clusters.hosts import machines, shell
from tests.fixtures.ports import free_ports

ROOT = Path(__file__).resolve().parents[2]
RAY = Path(sys.executable).parent / "ray"
JOB = ROOT / "tests/clusters/roles_job.py"
START_S = 240.0
# What Prometheus on the head reads, and whether it can.
TARGETS = 'import urllib.request as u; print(u.urlopen("http://localhost:9090/api/v1/targets").read().decode())'


def edited(file: Path, addresses: list[str], key: Path) -> None:
    """onprem.yaml as a person edits it: addresses, user, key, name; without Grafana, whose image has to be pulled."""
    text = (ROOT / "deploy/ray/onprem.yaml").read_text()
    for line, address in zip(("10.0.0.10", "10.0.0.11", "10.0.0.13"), addresses, strict=True):
        text = text.replace(line, address)
    config = yaml.safe_load(text)
    config["cluster_name"] = f"t{os.getpid()}"
    config["provider"]["worker_ips"].remove("10.0.0.12")
    config["auth"] = {"ssh_user": "root", "ssh_private_key": str(key)}
    config["head_setup_commands"].remove("~/sdpo/deploy/ray/node.sh grafana")
    file.write_text(yaml.safe_dump(config))


def ray_command(environment: dict[str, str], *words: str | Path) -> str:
    """What `ray …` printed; fails with it if the exit code is not 0."""
    done = subprocess.run(
        [RAY, *words],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=START_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:]
    return done.stdout


def brought_up(file: Path, environment: dict[str, str], tries: int = 3) -> None:
    """`ray start` gives up after 30 s, which a busy machine may need: then again, as a person would."""
    try:
        ray_command(environment, "up", "--yes", "--no-config-cache", file)
    except AssertionError as error:
        if tries == 1 or "timed out during startup" not in str(error):
            raise
        brought_up(file, environment, tries - 1)


@contextmanager
def dashboard(file: Path, environment: dict[str, str]) -> Iterator[str]:
    """The address of the head's dashboard on this machine, as `ray dashboard` forwards it."""
    (port,) = free_ports(1)
    forward = subprocess.Popen(
        [RAY, "dashboard", "--port", str(port), "--no-config-cache", file],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield f"http://localhost:{port}"
    finally:
        os.killpg(forward.pid, signal.SIGTERM)
        forward.wait(30)


def submitted(address: str, environment: dict[str, str]) -> dict[str, Any]:
    """What the job reported. Asks again while the port is not forwarded yet."""
    words = ["job", "submit", "--address", address, "--working-dir", str(JOB.parent), "--", "python", JOB.name]
    ends_s = time.monotonic() + START_S
    while True:
        try:
            said = ray_command(environment, *words)
        except AssertionError as error:
            if time.monotonic() > ends_s or "Failed to connect" not in str(error):
                raise
            time.sleep(1)
            continue
        report: dict[str, Any] = json.loads(next(line for line in said.splitlines() if line.startswith("{")))
        return report


def wait_until_no_ray(address: str, folder: Path) -> None:
    """Returns when no Ray node runs on a machine; raises `TimeoutError` after two minutes."""
    ends_s = time.monotonic() + 120
    while shell(address, folder, "pgrep -x 'raylet|gcs_server' || true"):
        if time.monotonic() > ends_s:
            raise TimeoutError(f"Ray still runs on {address} two minutes after `ray down`")
        time.sleep(1)


@pytest.mark.longest
@pytest.mark.timeout(900)
def test_own_machines_are_brought_up_over_ssh_run_a_job_and_are_taken_down() -> None:
    folder = Path(tempfile.mkdtemp(prefix="sdpo-up-"))
    private = {"HOME": folder, "TMPDIR": folder, "RAY_TMPDIR": folder}
    environment = os.environ | {k: str(v) for k, v in private.items()} | {"RAY_AUTH_MODE": "token"}
    cluster = folder / "cluster.yaml"
    try:
        with machines(3, folder) as addresses:
            edited(cluster, addresses, folder / "key")
            ray_command(environment, "get-auth-token", "--generate")
            began_s = time.monotonic()
            brought_up(cluster, environment)
            up_s = time.monotonic() - began_s
            with dashboard(cluster, environment) as address:
                report = submitted(address, environment)
            job_s = time.monotonic() - began_s - up_s
            installed = [(folder / a / "home/pip.log").read_text() for a in addresses]
            tokens = {(folder / a / "home/.ray/auth_token").read_text() for a in addresses}
            scraped = shell(addresses[0], folder, f"{sys.executable} -c '{TARGETS}'")
            ray_command(environment, "down", "--yes", cluster)
            began_s = time.monotonic()
            for a in addresses:
                wait_until_no_ray(a, folder)
            print(f"up {up_s:.0f} s, job {job_s:.0f} s, gone {time.monotonic() - began_s:.0f} s after `ray down`")
    finally:
        shutil.rmtree(folder)
    assert "up" in [target["health"] for target in json.loads(scraped)["data"]["activeTargets"]]
    roles = {what: node["role"] for what, node in report.items()}
    assert roles == {"head": "head", "learner": "learner", "env": "env", "env_slot": "env"}
    assert len({node["host"] for node in report.values()}) == 3
    assert "CPU" not in report["head"]["offers"], "the head works on nothing"
    assert report["env"]["offers"]["env_slot"] == 2
    assert "env_slot" not in report["learner"]["offers"]
    assert len(tokens) == 1
    heavy = ["torch==" in log or "[gpu," in log for log in installed]
    assert heavy == [True, True, False], "env nodes get the base package"

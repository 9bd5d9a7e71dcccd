"""Ray around here: a cluster that was named, processes and ports that are taken, proxies in the way."""

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

PORTS = {8265: "Ray's dashboard", 6379: "Ray's head", 8080: "Ray's metrics"}
CONNECT_TIMEOUT_S = 3.0
JOIN_TIMEOUT_S = 25.0
START_TIMEOUT_S = 90.0
_JOIN = (
    "import ray; ray.init(address={address!r}, log_to_driver=False, configure_logging=False); "
    "print('resources', ray.cluster_resources()); ray.shutdown()"
)
_START = (
    "import ray; ray.init(address='local', num_cpus=1, include_dashboard=False, log_to_driver=False, "
    "configure_logging=False); print('answer', ray.get(ray.remote(lambda: 42).remote())); ray.shutdown()"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterFacts:
    """Of RAY_ADDRESS. connect_error: "" if the port answered (or the address names none); failure: why a driver could
    not join, "" if it could. auth_mode: RAY_AUTH_MODE; has_token: whether a token is found where Ray looks for one.
    """

    address: str
    connect_error: str
    failure: str
    auth_mode: str
    has_token: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalFacts:
    """processes: Ray's, of all sessions on this machine; memory in bytes (shared memory counted once per process);
    holders: port to who listens ("" unknown) of PORTS that are taken.
    """

    num_processes: int
    num_nodes: int
    memory: int
    oldest_s: float
    holders: dict[int, str]
    proxies: dict[str, str]
    no_proxy: str


def gather_cluster(address: str, environ: Mapping[str, str]) -> ClusterFacts:
    """Joins the cluster as a run would, in a process of its own."""
    refused = _connect_error(address)
    failure = "" if refused else run_python(_JOIN.format(address=address), JOIN_TIMEOUT_S)
    token = environ.get("RAY_AUTH_TOKEN") or environ.get("RAY_AUTH_TOKEN_PATH")
    return ClusterFacts(
        address=address,
        connect_error=refused,
        failure=failure,
        auth_mode=environ.get("RAY_AUTH_MODE", ""),
        has_token=bool(token) or Path(environ.get("HOME", "/"), ".ray/auth_token").is_file(),
    )


def gather_start() -> tuple[float, str]:
    """Starts Ray here and runs one task: (seconds, why not)."""
    began = time.monotonic()
    failure = run_python(_START, START_TIMEOUT_S, without=("RAY_ADDRESS",))
    return time.monotonic() - began, failure


def gather_local(environ: Mapping[str, str]) -> LocalFacts:
    """Ray's processes, its usual ports, and proxies in the environment."""
    ours = [p for p in psutil.process_iter(["name", "cmdline", "create_time", "memory_info"]) if _is_rays(p)]
    names = ("http_proxy", "https_proxy", "all_proxy", "grpc_proxy")
    found = {name: value for name in names if (value := environ.get(name) or environ.get(name.upper()))}
    return LocalFacts(
        num_processes=len(ours),
        num_nodes=sum(p.info["name"] == "raylet" for p in ours),
        memory=sum(p.info["memory_info"].rss - p.info["memory_info"].shared for p in ours if p.info["memory_info"]),
        oldest_s=max((time.time() - p.info["create_time"] for p in ours), default=0.0),
        holders={port: _holder(port) for port in PORTS if _taken(port)},
        proxies=found,
        no_proxy=environ.get("no_proxy") or environ.get("NO_PROXY") or "",
    )


def run_python(program: str, timeout_s: float, without: tuple[str, ...] = ()) -> str:
    """ "" if it ended well, else the last line of what it said. One that is late is killed with all that it started."""
    environ = {name: value for name, value in os.environ.items() if name not in without}
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environ,
        start_new_session=True,
    )
    try:
        _, errors = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        kill_tree(process.pid)
        process.communicate()
        return f"no answer within {timeout_s:g} s"
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    return "" if process.returncode == 0 else (lines[-1] if lines else f"exit code {process.returncode}")[:400]


def kill_tree(pid: int) -> None:
    """A process and all that it started."""
    root = psutil.Process(pid)
    for process in [root, *root.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def _connect_error(address: str) -> str:
    found = re.search(r"(?:^|//)\[?([\w.-]+)\]?:(\d+)", address)
    if found is None:
        return ""  # "auto": Ray knows where
    try:
        socket.create_connection((found[1], int(found[2])), timeout=CONNECT_TIMEOUT_S).close()
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _is_rays(process: psutil.Process) -> bool:
    name, command = process.info["name"] or "", " ".join(process.info["cmdline"] or [])
    return name in ("raylet", "gcs_server") or name.startswith("ray::") or command.startswith("ray::")


def _taken(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(CONNECT_TIMEOUT_S)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _holder(port: int) -> str:
    """Needs root for processes of others."""
    try:
        for connection in psutil.net_connections("tcp"):
            listens = connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr[1] == port
            if listens and connection.pid:
                return f"{psutil.Process(connection.pid).name()}, process {connection.pid}"
    except psutil.Error:
        return ""
    return ""

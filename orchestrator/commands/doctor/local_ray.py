"""Ray on this machine: its processes, ports and proxies, and whether the cluster at RAY_ADDRESS can be joined."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import psutil

from orchestrator.commands.doctor.finding import Check, Finding, Level
from sdpo.errors import InfrastructureError
from sdpo.show import GIB, show_bytes

GROUP = "Ray"
finding = partial(Finding, GROUP)
ROOT = Path(__file__).parents[3]
PORTS = {8265: "Ray's dashboard", 6379: "Ray's head", 8080: "Ray's metrics"}
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "grpc_proxy")
JOIN_TIMEOUT_S, START_TIMEOUT_S, SPARE_S = 45.0, 90.0, 10.0


def ray_checks(full: bool) -> list[Check]:
    """Check what runs here, and the cluster if RAY_ADDRESS names one; with `full`, without a cluster, start Ray."""
    address = os.environ.get("RAY_ADDRESS")
    checks = [Check(GROUP, "local", lambda: examine_local(os.environ))]
    if address:
        look = partial(examine_cluster, address, os.environ)
        checks.append(Check(GROUP, "cluster", lambda: [look()], JOIN_TIMEOUT_S + SPARE_S, needed=True))
    elif full:
        checks.append(Check(GROUP, "start", examine_start, START_TIMEOUT_S + SPARE_S, needed=True))
    return checks


def examine_local(environ: Mapping[str, str]) -> Iterator[Finding]:
    """Look for Ray's processes, for its ports, and for proxies in the environment."""
    processes = [p.info for p in psutil.process_iter(["name", "cmdline", "create_time", "memory_info"]) if _is_rays(p)]
    yield judge_processes(
        len(processes),
        sum(info["name"] == "raylet" for info in processes),
        num_bytes=sum(m.rss - m.shared for info in processes if (m := info["memory_info"])),
        oldest_s=max((time.time() - info["create_time"] for info in processes), default=0.0),
    )
    yield from judge_ports(_listeners())
    yield from judge_proxies(environ)


def judge_processes(num_processes: int, num_sessions: int, num_bytes: int, oldest_s: float) -> Finding:
    """Judge Ray's processes of all sessions. num_bytes: their memory, without what they share."""
    if num_processes == 0:
        return finding("processes", Level.OK, "no process of Ray runs here")
    message = f"{num_processes} processes of {num_sessions} Ray sessions run here and take {show_bytes(num_bytes)}"
    fix = f"if none of them belongs to a run of yours: ray stop (the oldest has run for {oldest_s / 60:.0f} minutes)"
    return finding("processes", Level.WARNING if num_bytes > GIB else Level.NOTE, message, fix)


def judge_ports(listeners: Mapping[int, str]) -> Iterator[Finding]:
    """Judge which of PORTS are taken. `listeners`: the process by port, "" where it is not known."""
    for port, process in listeners.items():
        message = f"port {port} ({PORTS[port]}) is taken{process and f' by {process}'}"
        yield finding(f"port {port}", Level.NOTE, message, "only `ray start --head` needs it: give it another port")
    if not listeners:
        yield finding("ports", Level.OK, f"ports {', '.join(map(str, PORTS))} are free")


def judge_proxies(environ: Mapping[str, str]) -> Iterator[Finding]:
    """Warn of proxies that would take connections within this machine."""
    proxies = sorted(name for name in PROXIES if environ.get(name) or environ.get(name.upper()))
    exempt = {word.strip() for word in (environ.get("no_proxy") or environ.get("NO_PROXY") or "").split(",")}
    if proxies and not exempt & {"*", "localhost", "127.0.0.1"}:
        message = f"{', '.join(proxies)} is set and no_proxy does not list localhost: local connections use the proxy"
        fix = "export no_proxy=localhost,127.0.0.1 (and the cluster's nodes)"
        yield finding("proxy", Level.WARNING, message, fix)


def examine_cluster(address: str, environ: Mapping[str, str]) -> Finding:
    """Join the cluster as a run would, in a process of its own."""
    failure = ""
    try:
        run_python(["-c", f"from {__name__} import join; join({address!r})"], JOIN_TIMEOUT_S)
    except InfrastructureError as error:
        failure = str(error)
    token = environ.get("RAY_AUTH_TOKEN") or environ.get("RAY_AUTH_TOKEN_PATH")
    has_token = bool(token) or Path(environ.get("HOME", "/"), ".ray/auth_token").is_file()
    return judge_cluster(address, failure, environ.get("RAY_AUTH_MODE", ""), has_token)


def judge_cluster(address: str, failure: str, auth_mode: str, has_token: bool) -> Finding:
    """Judge why a driver cannot join: `failure`, "" if it can. has_token: whether a token is where Ray looks for it."""
    if not failure:
        return finding("cluster", Level.OK, f"the cluster at RAY_ADDRESS={address} accepts drivers from here")
    message, fix, reason = failure, "look at the cluster: ray status", failure.replace(address, "").lower()
    if "cannot be reached" in failure:
        message, _, fix = failure.partition("; ")
    elif re.search(r"\b401\b|unauthor|unauthenticated|token", reason):
        message += f" (RAY_AUTH_MODE={auth_mode or 'not set'}; there is {'a' if has_token else 'no'} token here)"
        fix = "export RAY_AUTH_MODE=token and copy the cluster's ~/.ray/auth_token to the same path here; "
        fix += "or RAY_AUTH_MODE=disabled on both sides"
    elif "version" in reason:
        fix = "use the same Ray and Python on both sides"
    return finding("cluster", Level.BROKEN, message, fix)


def examine_start() -> Iterator[Finding]:
    """Start Ray here and run one task."""
    began_s = time.monotonic()
    try:
        run_python(["-c", f"from {__name__} import start; start()"], START_TIMEOUT_S)
        yield finding("start", Level.OK, f"Ray started here and ran a task in {time.monotonic() - began_s:.0f} s")
    except InfrastructureError as error:
        fix = "read /tmp/ray/session_latest/logs (raylet.err, gcs_server.err)"
        yield finding("start", Level.BROKEN, f"Ray does not start here: {error}", fix)


def join(address: str) -> None:
    """Join the cluster and leave it. Raises `ConfigError` or `InfrastructureError`."""
    from orchestrator.cluster.connect import ray_connection

    with ray_connection(address):
        pass


def start() -> None:
    """Start Ray, run one task, and end Ray."""
    import ray

    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False, configure_logging=False)
    ray.get(ray.remote(lambda: 42).remote())
    ray.shutdown()


def run_python(arguments: Sequence[str], timeout_s: float, text: str = "") -> str:
    """Run Python with `arguments`, without RAY_ADDRESS, with `text` as its input, and return what it printed.

    Raises `InfrastructureError` with the last line of its errors, or if it is late: it is killed with its children.
    """
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    process = subprocess.Popen(
        [sys.executable, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"} | {"PYTHONPATH": path},
    )
    try:
        printed, errors = process.communicate(text, timeout=timeout_s)
    except subprocess.TimeoutExpired:
        _kill_tree(process.pid)
        process.communicate()
        raise InfrastructureError(f"no answer within {timeout_s:g} s") from None
    if process.returncode:
        lines = [line.strip() for line in errors.splitlines() if line.strip()] or [f"exit code {process.returncode}"]
        raise InfrastructureError(lines[-1].removeprefix("sdpo.errors.InfrastructureError: ")[:400])
    return printed


def _kill_tree(pid: int) -> None:
    with suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        for process in [root, *root.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                process.kill()


def _is_rays(process: psutil.Process) -> bool:
    name, command = process.info["name"] or "", " ".join(process.info["cmdline"] or [])
    return name in ("raylet", "gcs_server") or name.startswith("ray::") or command.startswith("ray::")


def _listeners() -> dict[int, str]:
    """Return the process that listens on each of PORTS that is taken; "" for other users' processes without root."""
    listeners: dict[int, str] = {}
    for connection in psutil.net_connections("tcp"):
        port = connection.laddr.port if connection.laddr else 0
        if connection.status == psutil.CONN_LISTEN and port in PORTS:
            listeners.setdefault(port, "")
            with suppress(psutil.Error):
                if connection.pid:
                    listeners[port] = f"{psutil.Process(connection.pid).name()}, process {connection.pid}"
    return listeners

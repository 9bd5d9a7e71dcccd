"""A Ray head as a team has it: its own process, with token authentication, on ports that are free."""

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import requests

STARTS = 4


@dataclass(frozen=True, slots=True)
class Head:
    """A running head. `client`: variables with which Ray's clients are let in."""

    gcs: str
    dashboard: str
    folder: Path
    client: dict[str, str]
    pid: int

    @property
    def logs(self) -> Path:
        return self.folder / "ray" / "session_latest" / "logs"

    def get(self, path: str, agent: str = "python") -> requests.Response:
        """What the dashboard's server answers to a client with the token; "Mozilla/5.0" is a browser."""
        return requests.get(self.dashboard + path, headers={**self._token, "User-Agent": agent}, timeout=60)

    def post(self, path: str, data: dict[str, str]) -> requests.Response:
        """What it answers to a POST of JSON."""
        return requests.post(self.dashboard + path, json=data, headers=self._token, timeout=60)

    @property
    def _token(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {Path(self.client['RAY_AUTH_TOKEN_PATH']).read_text()}"}

    def processes(self) -> list[psutil.Process]:
        """Of the head and of everything that runs under it."""
        try:
            head = psutil.Process(self.pid)
            return [head, *head.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []


def free_ports(count: int) -> list[int]:
    """Nobody listens on them at the moment."""
    with ExitStack() as open_sockets:
        sockets = [open_sockets.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


class TooSlow(Exception):
    """Ray gives its own start 30 s, which a loaded machine may exceed."""


@contextmanager
def ray_head(num_cpus: int = 8, **variables: str) -> Iterator[Head]:
    """As `_one_head`; a start that was too slow is tried again."""
    with ExitStack() as stack:
        for tries_left in range(STARTS - 1, -1, -1):
            try:
                head = stack.enter_context(_one_head(num_cpus, variables))
                break
            except TooSlow:
                if not tries_left:
                    raise
        yield head


@contextmanager
def _one_head(num_cpus: int, variables: Mapping[str, str]) -> Iterator[Head]:
    """`sdpo` is a command there, of the code that a job uploads; `variables` are in the environment of the nodes.

    The folder is short and directly below /tmp: Ray makes sockets in it.
    """
    folder = Path(tempfile.mkdtemp(prefix="sh-", dir="/tmp"))
    token = folder / "token"
    token.write_text(secrets.token_hex(32))
    (folder / "sdpo").write_text('#!/bin/sh\nexec python -m orchestrator "$@"\n')
    (folder / "sdpo").chmod(0o755)
    gcs, dashboard, agent, agent_grpc, metrics, client = free_ports(6)
    auth = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
    path = f"{folder}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "PYTHON", "SDPO_"))}
    command = [sys.executable, "-c", "from ray.scripts.scripts import main; main()", "start", "--head", "--block"]
    command += ["--port", str(gcs), "--dashboard-port", str(dashboard), "--dashboard-host", "127.0.0.1"]
    command += ["--dashboard-agent-listen-port", str(agent), "--dashboard-agent-grpc-port", str(agent_grpc)]
    command += ["--metrics-export-port", str(metrics), "--ray-client-server-port", str(client)]
    command += ["--node-ip-address", "127.0.0.1", "--temp-dir", str(folder / "ray"), "--disable-usage-stats"]
    command += ["--num-cpus", str(num_cpus), "--resources", '{"env_slot": 8}', "--min-worker-port", "0"]
    command += ["--max-worker-port", "0"]
    with (folder / "head.log").open("wb") as log:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**kept, **auth, **variables, "PATH": path},
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    head = Head(f"127.0.0.1:{gcs}", f"http://127.0.0.1:{dashboard}", folder, auth, process.pid)
    try:
        _wait_for(head, process)
        yield head
    finally:
        below = head.processes()
        process.terminate()
        _, alive = psutil.wait_procs(below, timeout=20)
        for one in alive:
            one.kill()
        process.wait(20)
        shutil.rmtree(folder, ignore_errors=True)


def _wait_for(head: Head, process: "subprocess.Popen[bytes]", timeout_s: float = 300) -> None:
    deadline = time.monotonic() + timeout_s
    while True:
        output = (head.folder / "head.log").read_text()
        if process.poll() is not None and "timed out during startup" in output:
            raise TooSlow(output)
        assert process.poll() is None, output
        assert time.monotonic() < deadline, f"no answer from {head.dashboard} within {timeout_s} s: {output}"
        try:
            if head.post("/api/jobs/", {"entrypoint": "true"}).status_code == 200:
                return  # also the agent that starts jobs is there
        except requests.ConnectionError:
            pass
        time.sleep(0.5)

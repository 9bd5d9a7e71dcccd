"""What the doctor says of Ray on a machine: a cluster that refuses, processes, ports and proxies."""

import pytest

from orchestrator.commands.doctor.examine import all_checks
from orchestrator.commands.doctor.finding import Level
from orchestrator.commands.doctor.local_ray import (
    judge_cluster,
    judge_ports,
    judge_processes,
    judge_proxies,
    ray_checks,
)
from sdpo.config import RunConfig

GIB = 2**30
ADDRESS = "10.0.0.1:6379"
UNREACHABLE = f"Ray at {ADDRESS} cannot be reached: connection refused; start it, or unset RAY_ADDRESS"


def test_a_cluster_that_refuses() -> None:
    assert judge_cluster(ADDRESS, "", "", has_token=False).level is Level.OK
    finding = judge_cluster(ADDRESS, UNREACHABLE, "", has_token=False)
    assert (finding.level, "unset RAY_ADDRESS" in finding.fix) == (Level.BROKEN, True)
    assert finding.message.endswith("cannot be reached: connection refused")
    finding = judge_cluster(ADDRESS, "AuthenticationError: 401 Unauthorized", "", has_token=False)
    assert "RAY_AUTH_MODE=token" in finding.fix
    assert "there is no token here" in finding.message
    assert "RAY_AUTH_MODE=token; there is a token" in judge_cluster(ADDRESS, "401", "token", has_token=True).message
    finding = judge_cluster(ADDRESS, "RuntimeError: Version mismatch: Ray 2.59.0", "", has_token=False)
    assert "same Ray and Python" in finding.fix
    assert "ray status" in judge_cluster(ADDRESS, "no answer within 45 s", "", has_token=False).fix


@pytest.mark.parametrize("address", ["127.0.0.1:40113", "token-ring:6379", "version2:6379"])
def test_an_address_is_no_part_of_the_reason(address: str) -> None:
    refused = judge_cluster(address, UNREACHABLE.replace(ADDRESS, address), "", has_token=False)
    assert refused.message == f"Ray at {address} cannot be reached: connection refused"
    silent = judge_cluster(address, f"Ray at {address} takes connections and does not answer", "", has_token=False)
    assert "ray status" in silent.fix


def test_processes_that_an_earlier_start_left() -> None:
    assert judge_processes(0, 0, num_bytes=0, oldest_s=0.0).level is Level.OK
    assert judge_processes(9, 1, num_bytes=GIB // 2, oldest_s=60.0).level is Level.NOTE
    finding = judge_processes(9, 1, num_bytes=2 * GIB, oldest_s=7200.0)
    assert finding.level is Level.WARNING
    assert "9 processes of 1 Ray sessions run here and take 2 GiB" in finding.message
    assert "120 minutes" in finding.fix


def test_ports_that_are_taken() -> None:
    (finding,) = judge_ports({6379: "redis-server, process 7"})
    assert (finding.level, "redis-server" in finding.message) == (Level.NOTE, True)
    (finding,) = judge_ports({8265: ""})
    assert finding.message.endswith("is taken")
    (finding,) = judge_ports({})
    assert finding.level is Level.OK


def test_proxies_in_the_way_of_local_connections() -> None:
    proxy = {"http_proxy": "http://proxy:3128"}
    (finding,) = judge_proxies(proxy | {"no_proxy": "example.org"})
    assert finding.level is Level.WARNING
    assert list(judge_proxies(proxy | {"no_proxy": "10.0.0.0/8, localhost"})) == []
    assert list(judge_proxies({"HTTPS_PROXY": "x", "NO_PROXY": "*"})) == []
    assert list(judge_proxies({})) == []


def test_ray_is_started_only_on_request_and_without_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert [check.name for check in ray_checks(full=False)] == ["local"]
    assert [(check.name, check.needed) for check in ray_checks(full=True)] == [("local", False), ("start", True)]
    monkeypatch.setenv("RAY_ADDRESS", ADDRESS)
    assert [(check.name, check.needed) for check in ray_checks(full=True)] == [("local", False), ("cluster", True)]


def test_the_run_is_checked_last_and_only_with_a_run_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    machine = [check.name for check in all_checks(None, full=False)]
    assert [check.name for check in all_checks(RunConfig(), full=False)] == [*machine, "imports", "run"]
    assert len(set(machine)) == len(machine)

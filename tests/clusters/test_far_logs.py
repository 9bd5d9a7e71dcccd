"""Lines of an actor whose node does not see the run directory, and its name, through Ray."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sdpo.log_line import Event, parse
from tests.fixtures.ray_head import ray_head
from tests.fixtures.run import ROOT


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_far_lines_come_through_ray_and_its_lists_say_who_an_actor_is(tmp_path: Path) -> None:
    (tmp_path / "far/logs").mkdir(parents=True)
    (tmp_path / "far/logs/orchestrator.log").write_text("2000-01-01T00:00:00.000000Z INFO orchestrator | the first\n")
    with ray_head() as head:
        env = {**os.environ, **head.client, "RAY_ADDRESS": head.gcs}
        driver = subprocess.Popen(
            [sys.executable, "-m", "tests.clusters.far_actor"],
            cwd=ROOT,
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert driver.stdout is not None
            happened = json.loads(driver.stdout.readline())
            assert "repr=env-7 judging 3)" in happened["failure"], "an error says what the actor did"
            listed = head.get("/api/v0/actors?detail=1&limit=10").json()["data"]["result"]["result"]
            reprs = [actor["repr_name"] for actor in listed if actor["name"] == "env-7"]
            assert reprs == ["env-7"], "Ray asked when the actor was made, and not again"
            for target, address, others in (("far", head.gcs, 0), (str(tmp_path / "far"), head.dashboard, 1)):
                events = fetched(target, address, env)
                assert [e.actor for e in events] == ["orchestrator"] * others + ["env-7"] * 4
                assert [(e.message, e.step, e.task) for e in events[-3:]] == [
                    (f"judged {n}", n, "t/1") for n in (1, 2, 3)
                ]
            none = command("status", "--address", head.gcs, env=env)
            assert (none.returncode, "no run there" in none.stderr) == (1, True)
        finally:
            driver.communicate(timeout=60)


def fetched(target: str, address: str, env: dict[str, str], timeout_s: float = 120) -> list[Event]:
    """What `sdpo logs` prints as soon as the actor is in it."""
    deadline_s = time.monotonic() + timeout_s
    while True:
        done = command("logs", target, "--address", address, env=env)
        events = [event for event in map(parse, done.stdout.splitlines()) if event is not None]
        if any(event.actor == "env-7" for event in events):
            return events
        assert time.monotonic() < deadline_s, done.stdout + done.stderr
        time.sleep(1)


def command(*arguments: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """`sdpo …` from outside."""
    told = [sys.executable, "-m", "orchestrator", *arguments]
    return subprocess.run(told, cwd=ROOT, env=env, capture_output=True, text=True, timeout=200, check=False)

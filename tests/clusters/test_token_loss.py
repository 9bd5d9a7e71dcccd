"""A node is lost with the tokens of first turns: those attempts begin again, none is lost, none comes twice."""

import json
import subprocess
import sys

import pytest

from tests.fixtures.run import ROOT


@pytest.mark.timeout(1200)
def test_attempts_whose_tokens_are_lost_begin_again_and_every_attempt_ends_once() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.clusters.token_loss"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    happened = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))
    attempts, seeds = range(4), range(100, 104)
    assert happened["before"] == [["first", seed] for seed in seeds]
    assert [(index, kind) for index, kind, _ in happened["verdicts"]] == [(index, "passed") for index in attempts]
    again = [index for index, _, name in happened["verdicts"] if name.endswith("/1")]
    assert again, "no tokens were lost: the test has lost its point"
    calls = [tuple(call) for call in happened["after"]]
    assert sorted(calls) == sorted([("first", seeds[i]) for i in again] + [("second", seed) for seed in seeds])
    assert happened["first_tokens"] == list(seeds), "the same seeds as before"
    for segments in happened["segments"]:
        assert [author for author, _ in segments] == ["model", "environment", "model"]

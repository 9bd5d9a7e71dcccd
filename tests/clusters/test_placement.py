"""Reservations, refusals and waits on a cluster of several nodes with stand-in GPUs, labels and env slots."""

import pytest

from tests.clusters.test_nodes import story_of


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_where_actors_are_placed_and_what_does_not_fit() -> None:
    story = story_of("placement", timeout_s=580.0)
    apart = story["separate"]
    assert apart["reserved"] == ["a-1/env-0", "a-1/env-1", "a-1/learner", "a-1/rollout-0"]
    assert apart["learner"] == ["learner", "learner"]
    assert apart["rollout"] == ["rollout", 2], "an engine over two GPUs is one actor on one node"
    assert apart["env"] == ["env", "env"]
    assert apart["same_node"]
    assert apart["same_reservation"], "a replacement goes back into its reservation"
    assert apart["moved"] == [True, "rollout"], "after the node's death there is a new one"
    assert apart["left"] == []

    together = story["colocated"]
    assert together["roles"] == ["learner"] * 3
    assert together["gpus"][0] == together["gpus"][1] == together["gpus"][2], "three shares of one device"
    assert together["names"] == [["b-1/learner"], ["b-1/learner"]], "only the learner releases its reservation"

    waited = story["waiting"]
    kind, line = waited["late"]
    assert kind == "InfrastructureError"
    assert line.startswith("placement.learner: 2 of 2 learner ranks do not fit in C now; each requests ")
    assert "available: 0 GPU on the largest node with sdpo-role=learner, 0 GPU on all 1; held by other-1; " in line
    assert line.endswith("not free within deadlines.start_s=2")
    assert 0.5 < waited["waited_s"] < 29, "it ends when the other run releases its resources"

    for name, words in (("gpus", "1 of 3 learner ranks do not fit"), ("label", "sdpo-role=teacher")):
        kind, line, seconds = story["refused"][name]
        assert kind == "PlacementError"
        assert words in line
        assert "\n" not in line
        assert seconds < 60

    said = [" ".join(found[1:]) for found in story["doctor"]]
    assert "ok resources for 2 learner ranks, 1 rollout workers, 2 env workers, 1 teachers are free now" in said
    assert any(s.startswith("warning placement.env: 7 of 9 env workers do not fit") for s in said)
    assert sum("a sandbox started and ran a program" in s for s in said) == 1, "only on env nodes"
    assert any("are free for run directories and checkpoints" in s for s in said)
    assert not [s for s in said if s.startswith("broken")]

    silent, closed = story["unreachable"]["silent"], story["unreachable"]["closed"]
    assert silent[0] == "Ray at ADDRESS takes connections and does not answer within 3 s"
    assert closed[0].startswith("Ray at ADDRESS cannot be reached: connection refused; ")
    assert max(silent[1], closed[1]) < 20

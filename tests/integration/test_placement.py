"""Reservations, refusals and waits on a cluster of several nodes with stand-in GPUs, labels and env slots."""

import pytest

from tests.integration.test_nodes import story_of


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_where_everybody_lives_and_what_has_no_room() -> None:
    story = story_of("placed", timeout_s=580.0)
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
    assert together["names"] == [["b-1/learner"], ["b-1/learner"]], "the learner's reservation is its own to give back"

    waited = story["waiting"]
    kind, line = waited["late"]
    assert kind == "InfrastructureError"
    assert line.startswith("placement.learner: 2 of 2 learner ranks have no place in C now; each asks for ")
    assert "available: 0 GPU on the largest node with sdpo-role=learner, 0 GPU on all 1; held by other-1; " in line
    assert line.endswith("no room within deadlines.start_s=2")
    assert 0.5 < waited["waited_s"] < 29, "it ends when the other run gives its room back"

    for name, words in (("gpus", "1 of 3 learner ranks have no place"), ("label", "sdpo-role=teacher")):
        kind, line, seconds = story["refused"][name]
        assert kind == "PlacementError"
        assert words in line
        assert "\n" not in line
        assert seconds < 60

    said = [" ".join(found[1:]) for found in story["doctor"]]
    assert "ok room for 2 learner ranks, 1 rollout workers, 2 env workers, 1 teachers is free now" in said
    assert any(s.startswith("warning placement.env: 7 of 9 env workers have no place") for s in said)
    assert sum("a sandbox started and ran a program" in s for s in said) == 1, "only where env workers live"
    assert any("are free for run directories and checkpoints" in s for s in said)
    assert not [s for s in said if s.startswith("broken")]

    silent, nobody = story["unreachable"]["silent"], story["unreachable"]["nobody"]
    assert silent[0] == "Ray at ADDRESS takes connections and does not answer within 3 s"
    assert nobody[0].startswith("Ray at ADDRESS cannot be reached: connection refused; ")
    assert max(silent[1], nobody[1]) < 20

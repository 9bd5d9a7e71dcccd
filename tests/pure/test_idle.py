"""Whom an idle actor waits for."""

import random

import pytest

from orchestrator.telemetry.idle import Accounts
from sdpo.telemetry.labels import BUSY, STAGES


def crew(*actors: str) -> Accounts:
    accounts = Accounts(0.0)
    for actor in actors:
        accounts.add(actor, actor.partition("-")[0], 0.0)
    return accounts


def test_idle_time_belongs_to_the_first_stage_under_way() -> None:
    """Judging overlaps generation from 2 to 3; nothing runs from 5 to 6; the second engine sleeps all along."""
    accounts = crew("rollout-0", "rollout-1", "env-0", "learner-rank0")
    accounts.begin("rollout-0", "generate", 0.0)
    accounts.begin("env-0", "judge", 2.0)
    accounts.end("rollout-0", "generate", 3.0)
    accounts.end("env-0", "judge", 5.0)
    accounts.begin("learner-rank0", "train", 6.0)
    seconds, stages = accounts.take(8.0)
    assert seconds["rollout-0"] == {BUSY: 3.0, "judge": 2.0, "orchestrator": 1.0, "train": 2.0}
    assert seconds["rollout-1"] == {"generate": 3.0, "judge": 2.0, "orchestrator": 1.0, "train": 2.0}
    assert seconds["env-0"] == {"generate": 2.0, BUSY: 3.0, "orchestrator": 1.0, "train": 2.0}
    assert seconds["learner-rank0"] == {"generate": 3.0, "judge": 2.0, "orchestrator": 1.0, BUSY: 2.0}
    assert stages == {"generate": 3.0, "judge": 3.0, "train": 2.0}


def test_what_was_taken_is_not_counted_again_and_open_calls_go_on() -> None:
    accounts = crew("env-0")
    accounts.begin("env-0", "judge", 1.0)
    assert accounts.take(2.0)[0] == {"env-0": {"orchestrator": 1.0, BUSY: 1.0}}
    accounts.begin("env-0", "judge", 3.0)  # a second call beside the first
    accounts.end("env-0", "judge", 4.0)
    assert accounts.running["judge"] == 1
    accounts.end("env-0", "judge", 6.0)
    assert accounts.take(7.0)[0] == {"env-0": {BUSY: 4.0, "orchestrator": 1.0}}


def test_an_actor_counts_from_its_coming_to_its_going() -> None:
    accounts = crew("env-0")
    accounts.begin("env-1", "start", 0.0)  # not hired yet: others wait for it, it has no account
    accounts.add("env-1", "env", 2.0)
    accounts.end("env-1", "start", 3.0)
    assert accounts.remove("env-1", 5.0) == {"start": 1.0, "orchestrator": 2.0}
    accounts.end("env-1", "judge", 6.0)  # of a call that began before it went
    assert accounts.take(6.0)[0] == {"env-0": {"start": 3.0, "orchestrator": 3.0}}


@pytest.mark.parametrize("seed", range(5))
def test_every_second_of_every_actor_is_counted_once(seed: int) -> None:
    """Whatever overlaps: the states of an actor add up to the time."""
    chance, actors = random.Random(seed), ["rollout-0", "rollout-1", "env-0", "teacher-0", "learner-rank0"]
    accounts, under_way = crew(*actors), list[tuple[str, str]]()
    totals, now_s = dict.fromkeys(actors, 0.0), 0.0
    for _ in range(500):
        now_s += chance.random()
        if under_way and chance.random() < 0.5:
            accounts.end(*under_way.pop(chance.randrange(len(under_way))), now_s)
        else:
            under_way.append((chance.choice(actors), chance.choice(STAGES)))
            accounts.begin(*under_way[-1], now_s)
        if chance.random() < 0.1:
            for actor, states in accounts.take(now_s)[0].items():
                totals[actor] += sum(states.values())
    for actor, states in accounts.take(now_s)[0].items():
        totals[actor] += sum(states.values())
    assert totals == pytest.approx(dict.fromkeys(actors, now_s))

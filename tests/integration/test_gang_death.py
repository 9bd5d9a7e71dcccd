"""A rank of two is killed while the other is in a collective with it."""

import asyncio
import os
import signal
from pathlib import Path

import pytest
import ray

from orchestrator.actors.learner_gang import LearnerGang
from sdpo.errors import LearnerDied
from tests.fixtures.learner import make_config, random_experiences, train_calls
from tests.fixtures.tiny_models import make_tiny_model


@pytest.mark.parametrize("backend", ["fsdp2", "zero2"])
def test_the_error_of_the_surviving_rank_is_the_death_of_the_gang(
    ray_cluster: str, tmp_path: Path, backend: str
) -> None:
    deadlines = {"train_s": 60.0, "start_s": 120.0}
    config = make_config(
        make_tiny_model(tmp_path),
        placement={"learner": {"ranks": 2}},
        deadlines=deadlines,
        learner={"backend": backend},
    )
    gang = LearnerGang(config, f"{ray_cluster}-{backend}")

    async def kill_the_peer_of_a_collective() -> None:
        await gang.start(None)
        survivor, victim = gang.ranks.values()
        request, *objects = train_calls(random_experiences(4), 2, 8192)[0]
        pid = await victim.__ray_call__.remote(lambda _: os.getpid())
        waits_for_its_peer = survivor.train.remote(request, *(ray.put(o) for o in objects))
        await asyncio.sleep(2)
        os.kill(pid, signal.SIGKILL)
        never = asyncio.get_running_loop().create_future()
        await gang._gather([waits_for_its_peer, never], "train", 60)

    try:
        with pytest.raises(LearnerDied):
            asyncio.run(kill_the_peer_of_a_collective())
    finally:
        gang.kill()

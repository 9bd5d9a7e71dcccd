"""The actor `orchestrator` beside a driver that does nothing: it tells, it hears, it dies and comes back, it goes."""

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

import ray

from orchestrator.front import NAME
from orchestrator.front_desk import Told, front_desk
from orchestrator.progress import NOBODY
from orchestrator.stop_file import StopFile
from orchestrator.stopping_from_outside import find_front, list_runs
from sdpo.config import RunConfig

RUN = "a-run"


async def until(condition: Any, timeout_s: float = 60) -> Any:
    """The first true answer of `condition`; raises TimeoutError."""
    async with asyncio.timeout(timeout_s):
        while not (answer := await condition()):  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        return answer


async def dies(front: Any, told: Told) -> None:
    """Kill the actor, which Ray starts again; returns when the driver has seen that it was away."""
    told.status["last_error"] = None
    ray.kill(front, no_restart=False)

    async def seen() -> bool:
        return told.status["last_error"] is not None

    await until(seen)


async def story(folder: Path) -> dict[str, Any]:
    """What happened, as JSON."""
    told, asked, found = Told(RunConfig(name=RUN), str(folder), NOBODY), list[float](), dict[str, Any]()
    stop_file = StopFile(folder)
    async with front_desk(told, f"{RUN}-7", 7, lambda: asked.append(time.monotonic()), stop_file):
        front = find_front("here", RUN)
        told.enter("generate")
        told.step_done(3, {"rollout/reward": 0.5})

        async def says(step: int) -> Any:
            try:
                status = await front.status.remote()
            except ray.exceptions.RayActorError:  # it is being started again
                return None
            return status if status["step"] == step else None

        found["status"] = await until(lambda: says(3))
        found["age_s"] = time.time() - found["status"]["updated_s"]
        [row] = [a for a in ray.util.list_named_actors(all_namespaces=True) if a["name"] == NAME]
        found["namespace"] = row["namespace"]

        await dies(front, told)
        told.step_done(4, {"rollout/reward": 0.75})
        found["after_death"] = await until(lambda: says(4))

        found["asked_before"] = len(asked)
        found["heard"] = await asyncio.wait_for(front.stop.remote(False, 30.0), 60)
        found["heard_again"] = await asyncio.wait_for(front.stop.remote(False, 30.0), 60)
        found["asked_once"] = len(asked)
        await dies(front, told)
        await until(lambda: says(4))
        found["asked_after_death"] = len(asked)
        found["heard_now"] = await asyncio.wait_for(front.stop.remote(True, 30.0), 60)
        found["asked_now"] = len(asked)
    found["left"] = list_runs()

    asked.clear()
    async with front_desk(told, f"{RUN}-8", 8, lambda: asked.append(time.monotonic()), stop_file):
        await asyncio.to_thread(stop_file.ask, 30.0)
        found["asked_by_file"] = len(asked)
    return found


if __name__ == "__main__":
    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False, configure_logging=False)
    print(json.dumps(asyncio.run(story(Path(sys.argv[1])))))
    ray.shutdown()

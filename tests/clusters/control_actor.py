"""The actor `orchestrator` beside a driver that does nothing: it is asked to stop, it dies and comes back, it ends."""

import asyncio
import json
import logging
import sys
import time
from pathlib import Path
from typing import Any

import ray

from orchestrator.commands.stop.stop import find_control_actor, list_runs
from orchestrator.control.control_actor import NAME
from orchestrator.control.control_client import control_client
from orchestrator.control.stop_file import StopFile

RUN = "a-run"


class Warnings(logging.Handler):
    """Keeps the warnings of the driver."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines = list[str]()

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


async def until(condition: Any, timeout_s: float = 60) -> Any:
    """The first true answer of `condition`; raises TimeoutError."""
    async with asyncio.timeout(timeout_s):
        while not (answer := await condition()):  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        return answer


async def dies(control_actor: Any, warnings: Warnings) -> str:
    """Kill the actor, which Ray starts again; returns the driver's warning when it has seen that it was away."""
    warnings.lines.clear()
    ray.kill(control_actor, no_restart=False)

    async def seen() -> bool:
        return bool(warnings.lines)

    await until(seen)
    return warnings.lines[0]


async def heard(control_actor: Any, now: bool) -> bool:
    """Ask for a stop as soon as the actor answers."""

    async def answers() -> Any:
        try:
            return [await control_actor.stop.remote(now, 30.0)]
        except ray.exceptions.RayActorError:  # it is being started again
            return None

    [answer] = await until(answers)
    return bool(answer)


async def story(folder: Path) -> dict[str, Any]:
    """What happened, as JSON."""
    asked, found, warnings = list[float](), dict[str, Any](), Warnings()
    logging.getLogger().addHandler(warnings)
    stop_file = StopFile(folder)
    async with control_client(f"{RUN}-7", lambda: asked.append(time.monotonic()), stop_file):
        control_actor = find_control_actor("here", RUN)
        [row] = [a for a in ray.util.list_named_actors(all_namespaces=True) if a["name"] == NAME]
        found["namespace"] = row["namespace"]
        await asyncio.wait_for(control_actor.__ray_ready__.remote(), 60)

        found["warning"] = await dies(control_actor, warnings)
        found["asked_before"] = len(asked)
        found["heard"] = await heard(control_actor, False)
        found["heard_again"] = await heard(control_actor, False)
        found["asked_once"] = len(asked)
        await dies(control_actor, warnings)
        found["heard_after_death"] = await heard(control_actor, False)
        found["asked_after_death"] = len(asked)
        found["heard_now"] = await heard(control_actor, True)
        found["asked_now"] = len(asked)
    found["left"] = list_runs()

    asked.clear()
    async with control_client(f"{RUN}-8", lambda: asked.append(time.monotonic()), stop_file):
        await asyncio.to_thread(stop_file.ask, 30.0)
        found["asked_by_file"] = len(asked)
    return found


if __name__ == "__main__":
    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False, configure_logging=False)
    print(json.dumps(asyncio.run(story(Path(sys.argv[1])))))
    ray.shutdown()

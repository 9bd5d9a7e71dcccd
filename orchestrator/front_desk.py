"""The driver's side of the actor `orchestrator`: tells it what the run does and hears what is asked of the run.

Both within seconds. The run does not need the actor: without it nobody outside hears of the run or can stop it through
the cluster, which is logged, and signals and the run directory's stop file work on.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

import ray
from ray.exceptions import RayActorError

from orchestrator.front import NAME, Asked, Front, Status, front_options
from orchestrator.progress import Progress
from orchestrator.progress_state import Stage
from orchestrator.stop_file import StopFile
from orchestrator.waits import within
from sdpo.config import RunConfig
from sdpo.errors import StageTimeout

log = logging.getLogger(__name__)

PERIOD_S = 1.0
"""Between two exchanges when nothing is asked: how old a status may be."""
PATIENCE_S = 30.0
"""An exchange that takes longer has failed and is tried again."""


class Told(Progress):
    """Passes everything on to `shown` and keeps the status that the actor is told."""

    def __init__(self, config: RunConfig, run_dir: str, shown: Progress) -> None:
        self._shown = shown
        self.status = Status(
            run=config.name,
            dir=run_dir,
            incarnation=0,
            step=0,
            steps=config.steps,
            stage="starting",
            reward=None,
            version=None,
            last_error=None,
            updated_s=time.time(),
        )

    def begin(self, steps_done: int, records: list[dict[str, Any]]) -> None:
        self._shown.begin(steps_done, records)
        self.status |= {"step": steps_done, "stage": "starting", "version": None}

    def enter(self, stage: Stage, expected: int = 0) -> None:
        self._shown.enter(stage, expected)
        self.status["stage"] = stage

    def add(self, stage: Stage, batch: int | None = None) -> None:
        self._shown.add(stage, batch)

    def step_done(self, step: int, metrics: Mapping[str, float]) -> None:
        self._shown.step_done(step, metrics)
        reward = metrics.get("rollout/reward")
        self.status |= {"step": step, "stage": "collect", "version": f"{self.status['incarnation']}.{step}"}
        self.status["reward"] = self.status["reward"] if reward is None else float(reward)

    def say(self, line: str) -> None:
        self._shown.say(line)


class _Errors(logging.Handler):
    """Keeps the last warning or error of this process as the status's `last_error`."""

    def __init__(self, status: Status) -> None:
        super().__init__(logging.WARNING)
        self._status = status

    def emit(self, record: logging.LogRecord) -> None:
        lines = record.getMessage().strip().splitlines()
        self._status["last_error"] = lines[0] if lines else None


@asynccontextmanager
async def front_desk(
    told: Told, namespace: str, incarnation: int, ask: Callable[[], None], stop_file: StopFile
) -> AsyncIterator[None]:
    """Inside, the actor is there and `ask` is called as one signal would be: once for a stop, once more for "now"."""
    told.status["incarnation"] = incarnation
    options = front_options(ray.get_runtime_context().get_node_id())
    actor = ray.remote(Front).options(name=NAME, namespace=namespace, **options).remote(told.status)
    errors = _Errors(told.status)
    logging.getLogger().addHandler(errors)
    attending = asyncio.create_task(_attend(actor, told, ask, stop_file))
    try:
        yield
    finally:
        logging.getLogger().removeHandler(errors)
        attending.cancel()
        with suppress(asyncio.CancelledError):
            await attending
        ray.kill(actor)


async def _attend(actor: Any, told: Told, ask: Callable[[], None], stop_file: StopFile) -> None:
    """Until it is cancelled. An actor that does not answer is asked again; the first failure of a row is logged."""
    heard, is_away = Asked(stop=False, now=False), False
    while True:
        told.status["updated_s"] = time.time()
        try:
            call = actor.exchange.remote(told.status, heard, PERIOD_S)
            asked = await within(call, actor=NAME, stage="exchange", timeout_s=PATIENCE_S)
            is_away = False
        except (RayActorError, StageTimeout) as error:
            if not is_away:
                log.warning("the actor %s is away, the run goes on: %s", NAME, str(error).splitlines()[0])
            asked, is_away = heard, True
            await asyncio.sleep(PERIOD_S)
        if await asyncio.to_thread(stop_file.take):
            asked = Asked(stop=True, now=asked["now"])
        for is_new in (asked["stop"] > heard["stop"], asked["now"] > heard["now"]):
            if is_new:
                ask()
        heard = Asked(stop=asked["stop"], now=asked["now"])

"""The driver's side of the actor `orchestrator`: passes requests to stop on to the run, within seconds.

The run does not need the actor: while it does not answer, which is logged, the run cannot be stopped through the
cluster, but still by signals and by the stop file of its directory.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import ray
from ray.exceptions import RayActorError

from orchestrator.control.control_actor import NAME, NO_STOP, STOP, ControlActor, control_actor_options
from orchestrator.control.stop_file import StopFile
from sdpo.show import show_error

log = logging.getLogger(__name__)

EXCHANGE_S = 1.0
"""The longest time that an exchange waits for a request; the stop file is looked for after each."""
PATIENCE_S = 30.0
"""An exchange that takes longer has failed and is tried again."""


@asynccontextmanager
async def control_client(namespace: str, ask: Callable[[], None], stop_file: StopFile) -> AsyncIterator[None]:
    """Inside, the actor exists, and `ask` is called like a signal handler: once for a stop, once more for "now"."""
    options = control_actor_options(ray.get_runtime_context().get_node_id())
    actor = ray.remote(ControlActor).options(name=NAME, namespace=namespace, **options).remote()
    watching = asyncio.create_task(_watch(actor, ask, stop_file))
    try:
        yield
    finally:
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching
        ray.kill(actor)


async def _watch(actor: Any, ask: Callable[[], None], stop_file: StopFile) -> None:
    """Exchange requests until cancelled. An actor that does not answer is asked again; its first failure is logged."""
    seen, is_away = NO_STOP, False
    while True:
        request = seen
        try:
            async with asyncio.timeout(PATIENCE_S):
                request = await actor.exchange.remote(seen, EXCHANGE_S)
            is_away = False
        except (RayActorError, TimeoutError) as error:
            if not is_away:
                reason = show_error(error) or f"no answer within {PATIENCE_S:g} s"
                log.warning("the control actor does not answer; the run continues: %s", reason)
            is_away = True
            await asyncio.sleep(EXCHANGE_S)
        if await asyncio.to_thread(stop_file.take):
            request = max(request, STOP)
        for _ in range(seen, request):
            ask()
        seen = request

"""Removes containers whose workers are gone: at the start of an env worker and every few seconds after.

A container ends with its worker by itself (its stdin ends). The janitor is for what that does not reach: a container
that was made and never started, a runner that hangs, a host that was lost while its engine was not.
"""

import logging
import threading
import time
from typing import Any

from docker.errors import APIError

from env_workers.sandbox.engine import ENGINE_ERRORS, Containers, address, connect
from env_workers.sandbox.ownership import CREATED, is_orphan
from sdpo.errors import InfrastructureError

PERIOD_S = 5.0
_GONE_ALREADY = (404, 409)
_log = logging.getLogger(__name__)


def reap(config: Containers) -> list[str]:
    """Remove the orphans in an engine.

    Return their ids. Raises InfrastructureError where the engine does not answer.
    """
    try:
        client = connect(config)
        try:
            containers = client.containers(all=True, filters={"label": CREATED})
            now_s = time.time()
            orphans = [container["Id"] for container in containers if is_orphan(container["Labels"], now_s)]
            for container in orphans:
                _remove(client, container)
        finally:
            client.close()
    except ENGINE_ERRORS as error:
        raise InfrastructureError(f"the Docker engine at {address(config)}: {error}") from None
    return orphans


class Janitor:
    """A thread that removes orphans every `period_s`. Only `close` ends it, not an engine that does not answer.

    `num_reaped`: containers removed. `num_failed`: sweeps in which the engine did not answer.
    """

    def __init__(self, config: Containers, period_s: float = PERIOD_S) -> None:
        self._config, self._period_s = config, period_s
        self._closing = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="janitor", daemon=True)
        self.num_reaped = self.num_failed = 0
        self._thread.start()

    def check(self) -> None:
        """Raise InfrastructureError when the thread ended without `close`."""
        if not self._thread.is_alive() and not self._closing.is_set():
            raise InfrastructureError(f"the janitor of containers ended: {self._error!r}")

    def close(self) -> None:
        """End the thread. A sweep that has begun ends by itself."""
        self._closing.set()

    def _run(self) -> None:
        try:
            while not self._closing.is_set():
                self._sweep()
                self._closing.wait(self._period_s)
        except BaseException as error:  # `check` raises it in the caller's thread
            self._error = error

    def _sweep(self) -> None:
        try:
            self.num_reaped += len(reap(self._config))
        except InfrastructureError as error:
            self.num_failed += 1
            _log.warning("cannot look for containers of dead workers: %s", error)


def _remove(client: Any, container: str) -> None:
    try:
        client.remove_container(container, force=True, v=True)
    except APIError as error:
        if error.status_code not in _GONE_ALREADY:
            raise

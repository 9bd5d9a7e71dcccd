"""One look after the other at the runs of a cluster, from outside."""

import time
from collections import deque
from dataclasses import replace

from orchestrator.log_fetch import belongs
from orchestrator.log_view import last_error
from orchestrator.ray_address import gcs_of
from orchestrator.ray_nodes import metrics_targets
from orchestrator.remote_dir import reading_copy
from orchestrator.status_data import RunStatus, read_status, runs_of
from orchestrator.status_scrape import Sample, scrape
from sdpo.errors import ConfigError, InfrastructureError
from sdpo.log_line import text_of_time

RATES_OVER_S = 30.0
"""Rates are of about so much time: Ray's nodes report every few seconds."""


class Watcher:
    """Of the run in a directory, of a run by name, or of all runs in a cluster."""

    def __init__(self, target: str | None, address: str | None) -> None:
        """`address`: see `orchestrator.ray_nodes`; `target`: a directory, also a URI, or a name.

        Raises `ConfigError` where it is not said what to look at, `StorageError` for a URI that cannot be read.
        """
        place = None if target is None else reading_copy(target)
        folder = place if place is not None and (place / "config.yaml").is_file() else None
        if folder is None and address is None:
            what = "no RUN" if target is None else f"{target}: not a run directory"
            raise ConfigError(f"{what}, and no address; allowed: a run directory, or --address or RAY_ADDRESS")
        self._folder, self._address, self._target = folder, address, target
        self._run = folder.resolve().name if folder is not None else target
        self._looks = deque[tuple[float, list[Sample]]]()

    def look(self) -> list[RunStatus]:
        """The runs now, live ones first. Raises `InfrastructureError` where no Ray answers or none of them is there."""
        address = self._where()
        try:
            targets = metrics_targets(address)
        except InfrastructureError as error:
            if self._address is not None:
                raise
            raise InfrastructureError(f"{self._target}: no run lives there now: {error}") from error
        samples, silent = scrape(targets)
        if len(silent) == len(targets):
            raise InfrastructureError(f"Ray at {address}: none of its {len(targets)} nodes hands out metrics")
        now_s = time.time()
        before = self._before(now_s, samples)
        former = {} if before is None else runs_of(before[1])
        found = []
        for run, mine in runs_of(samples).items():
            if self._run is None or belongs(run, self._run):
                earlier = None if before is None or run not in former else (before[0], former[run])
                found.append(read_status(run, mine, now_s, earlier))
        if not found:
            which = "no run" if self._run is None else f"no run {self._run}"
            raise InfrastructureError(f"Ray at {address}: {which} there (a run that has just begun tells after 10 s)")
        return [replace(status, last_error=self._last_error(status, now_s)) for status in found]

    def _last_error(self, status: RunStatus, now_s: float) -> str | None:
        """Of this incarnation, where the run directory can be read."""
        if self._folder is None or not status.active or status.up_s is None:
            return None
        return last_error(self._folder / "logs", text_of_time(now_s - status.up_s))

    def _where(self) -> str:
        if self._address is not None:
            return self._address
        assert self._folder is not None
        assert self._target is not None
        return gcs_of(self._folder, self._target)

    def _before(self, now_s: float, samples: list[Sample]) -> tuple[float, list[Sample]] | None:
        """The newest look that is old enough for rates, else the oldest."""
        while len(self._looks) > 1 and self._looks[1][0] <= now_s - RATES_OVER_S:
            self._looks.popleft()
        before = self._looks[0] if self._looks else None
        self._looks.append((now_s, samples))
        return before if before is not None and now_s - before[0] >= RATES_OVER_S / 2 else None

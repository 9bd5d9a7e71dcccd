"""Polls the status of the runs in a cluster."""

import time
from collections import deque
from dataclasses import replace

from orchestrator.cluster.connect import metrics_targets
from orchestrator.cluster.ray_address import gcs_of
from orchestrator.commands.logs.fetch import belongs
from orchestrator.commands.logs.view import last_error
from orchestrator.commands.status.data import RunStatus, read_status, runs_of
from orchestrator.commands.status.scrape import Sample, scrape
from orchestrator.run_dir.remote_dir import reading_copy
from sdpo.errors import ConfigError, InfrastructureError
from sdpo.log_line import text_of_time
from sdpo.run_layout import CONFIG, LOGS

RATES_OVER_S = 30.0
"""Rates are computed over about this time, because Ray's nodes report every few seconds."""


class Watcher:
    """Reads the status of the run in a directory, of a run by name, or of all runs in a cluster."""

    def __init__(self, target: str | None, address: str | None) -> None:
        """`address` is for `metrics_targets`; `target` is a run directory, its URI, or the name of a run.

        Raises `ConfigError` if neither says where the run is, `StorageError` for a URI that cannot be read.
        """
        copy = None if target is None else reading_copy(target)
        folder = copy if copy is not None and (copy / CONFIG).is_file() else None
        if folder is None and address is None:
            what = "no RUN" if target is None else f"{target}: not a run directory"
            raise ConfigError(f"{what}, and no address; allowed: a run directory, or --address or RAY_ADDRESS")
        self._folder, self._address, self._target = folder, address, target
        self._run = folder.resolve().name if folder is not None else target
        self._looks = deque[tuple[float, list[Sample]]]()

    def look(self) -> list[RunStatus]:
        """Return the status of the runs, active ones first. Raises `InfrastructureError` if there are none."""
        address = self._where()
        try:
            targets = metrics_targets(address)
        except InfrastructureError as error:
            if self._address is not None:
                raise
            raise InfrastructureError(f"{self._target}: no run is active there now: {error}") from error
        samples, silent = scrape(targets)
        if len(silent) == len(targets):
            raise InfrastructureError(f"Ray at {address}: none of its {len(targets)} nodes answers with metrics")
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
            raise InfrastructureError(f"Ray at {address}: {which} there (a run shows up about 10 s after its start)")
        return [replace(status, last_error=self._last_error(status, now_s)) for status in found]

    def _last_error(self, status: RunStatus, now_s: float) -> str | None:
        """Return the last error of this incarnation, if the run directory can be read."""
        if self._folder is None or not status.active or status.up_s is None:
            return None
        return last_error(self._folder / LOGS, text_of_time(now_s - status.up_s))

    def _where(self) -> str:
        if self._address is not None:
            return self._address
        assert self._folder is not None
        assert self._target is not None
        return gcs_of(self._folder, self._target)

    def _before(self, now_s: float, samples: list[Sample]) -> tuple[float, list[Sample]] | None:
        """Return the newest earlier look that is old enough for rates, else the oldest."""
        while len(self._looks) > 1 and self._looks[1][0] <= now_s - RATES_OVER_S:
            self._looks.popleft()
        before = self._looks[0] if self._looks else None
        self._looks.append((now_s, samples))
        return before if before is not None and now_s - before[0] >= RATES_OVER_S / 2 else None

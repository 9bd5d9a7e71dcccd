"""The status of runs, computed from the metrics of `sdpo.telemetry.catalogue`."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from orchestrator.commands.status.scrape import Sample
from sdpo.telemetry.labels import BUSY, ROLES, STAGES


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleStatus:
    """The actors of one role. `versions` are the lowest and the highest batch whose weights they hold."""

    serving: int
    pending: int
    draining: int
    queue: int
    """Callers that wait for an actor of the role; of the learner, finished groups."""
    restarts: int
    busy_share: float | None
    """Share of the time since the earlier status, or since the start; None before the first report."""
    waits_for: str | None
    """The stage that its idle time was mostly spent waiting for."""
    versions: tuple[int, int] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StageStatus:
    """One stage: calls that run now, seconds in which any ran since the start, and these seconds per step."""

    running: int
    seconds: float
    per_step_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStatus:
    """One run (name and incarnation). Times are in seconds; None stands for what was not measured yet."""

    run: str
    active: bool
    step: int
    steps: int
    version: int | None
    """The batch that produced the newest published policy."""
    up_s: float | None
    quiet_s: float | None
    """Seconds since a call of an actor last succeeded."""
    step_s: float | None
    """Mean duration of the steps of this incarnation."""
    reward: float | None
    reward_best: float | None
    pass_rate: float | None
    heldout_pass_at_1: float | None
    heldout_reward: float | None
    tokens_per_s: dict[str, float]
    """By kind of work: generated, scored, trained."""
    roles: dict[str, RoleStatus]
    stages: dict[str, StageStatus]
    alarms: list[str]
    errors: dict[str, int]
    """Failures so far, by kind: infrastructure errors of env workers, replaced actors, failed weight updates."""
    last_error: str | None = None
    """The last warning or error in the run directory's logs, if it can be read."""


def runs_of(samples: Iterable[Sample]) -> dict[str, list[Sample]]:
    """Return the samples by run, active runs first."""
    found = dict[str, list[Sample]]()
    for sample in samples:
        if sample.labels.get("run"):
            found.setdefault(sample.labels["run"], []).append(sample)
    return dict(sorted(found.items(), key=lambda item: (not Series(item[1]).one("sdpo_run_active"), item[0])))


def read_status(
    run: str, samples: Sequence[Sample], now_s: float, before: tuple[float, Sequence[Sample]] | None = None
) -> RunStatus:
    """Return the status of a run at `now_s` (seconds since 1970).

    `before` is an earlier time and its samples: rates then cover the time between the two.
    """
    series = Series(samples)
    start_s = series.one("sdpo_run_start_timestamp_seconds")
    progress_s = series.one("sdpo_last_progress_timestamp_seconds")
    steps, seconds = series.one("sdpo_step_seconds_count") or 0.0, series.one("sdpo_step_seconds_sum") or 0.0
    version = series.one("sdpo_weight_version", role="learner", stream="policy")
    earlier = Series([]) if before is None else Series(before[1])
    since_s = start_s if before is None else before[0]
    return RunStatus(
        run=run,
        active=bool(series.one("sdpo_run_active")),
        step=int(series.one("sdpo_step") or 0),
        steps=int(series.one("sdpo_steps_planned") or 0),
        version=None if version is None else int(version),
        up_s=None if start_s is None else max(0.0, now_s - start_s),
        quiet_s=None if progress_s is None else max(0.0, now_s - progress_s),
        step_s=seconds / steps if steps else None,
        reward=series.one("sdpo_reward"),
        reward_best=series.one("sdpo_reward_best"),
        pass_rate=series.one("sdpo_pass_rate", split="train"),
        heldout_pass_at_1=series.one("sdpo_pass_rate", split="heldout"),
        heldout_reward=series.one("sdpo_heldout_reward"),
        tokens_per_s=_rates(series, earlier, None if since_s is None else now_s - since_s),
        roles={role: _role(role, series, earlier) for role in ROLES if series.total("sdpo_actors", role=role)},
        stages={stage: _stage(stage, series, steps) for stage in STAGES},
        alarms=sorted(s.labels["alarm"] for s in series.all("sdpo_alarm") if s.value == 1),
        errors=_errors(series),
    )


class Series:
    """Samples of one run, looked up by name and labels."""

    def __init__(self, samples: Iterable[Sample]) -> None:
        self._by_name = dict[str, list[Sample]]()
        for sample in samples:
            if math.isfinite(sample.value):
                self._by_name.setdefault(sample.name, []).append(sample)

    def all(self, name: str, **labels: str) -> list[Sample]:
        """Return the samples of a name that have at least these labels."""
        return [s for s in self._by_name.get(name, ()) if labels.items() <= s.labels.items()]

    def one(self, name: str, **labels: str) -> float | None:
        """Return the highest value: a gauge of a dead process may still be there beside its successor's."""
        return max((s.value for s in self.all(name, **labels)), default=None)

    def total(self, name: str, **labels: str) -> float:
        """Return the sum of the values."""
        return sum(s.value for s in self.all(name, **labels))

    def by(self, name: str, label: str, **labels: str) -> dict[str, float]:
        """Return the sums by the value of a label."""
        found = dict[str, float]()
        for sample in self.all(name, **labels):
            key = sample.labels.get(label, "")
            found[key] = found.get(key, 0.0) + sample.value
        return found


def _rates(now: Series, before: Series, seconds: float | None) -> dict[str, float]:
    if seconds is None or seconds <= 0:
        return {}
    earlier = before.by("sdpo_tokens_total", "work")
    totals = now.by("sdpo_tokens_total", "work")
    return {work: max(0.0, total - earlier.get(work, 0.0)) / seconds for work, total in totals.items()}


def _role(role: str, now: Series, before: Series) -> RoleStatus:
    pool = now.by("sdpo_actors", "pool", role=role)
    spent = _grown(now.by("sdpo_actor_seconds_total", "state", role=role), before, role)
    idle = {state: seconds for state, seconds in spent.items() if state != BUSY and seconds > 0}
    versions = [int(s.value) for s in now.all("sdpo_weight_version", role=role)]
    return RoleStatus(
        serving=int(pool.get("serving", 0)),
        pending=int(pool.get("pending", 0)),
        draining=int(pool.get("draining", 0)),
        queue=int(now.total("sdpo_queue_length", role=role)),
        restarts=int(now.total("sdpo_restarts_total", role=role)),
        busy_share=spent.get(BUSY, 0.0) / sum(spent.values()) if sum(spent.values()) > 0 else None,
        waits_for=max(idle, key=lambda state: idle[state]) if idle else None,
        versions=(min(versions), max(versions)) if versions else None,
    )


def _grown(totals: Mapping[str, float], before: Series, role: str) -> dict[str, float]:
    """Return seconds by state since `before`; all seconds if nothing new was reported."""
    earlier = before.by("sdpo_actor_seconds_total", "state", role=role)
    grown = {state: max(0.0, total - earlier.get(state, 0.0)) for state, total in totals.items()}
    return grown if sum(grown.values()) > 0 else dict(totals)


def _stage(stage: str, series: Series, steps: float) -> StageStatus:
    seconds = series.total("sdpo_stage_seconds_total", stage=stage)
    return StageStatus(
        running=int(series.total("sdpo_stage_running", stage=stage)),
        seconds=seconds,
        per_step_s=seconds / steps if steps else None,
    )


def _errors(series: Series) -> dict[str, int]:
    restarts = {f"restart: {kind}": n for kind, n in series.by("sdpo_restarts_total", "failure").items()}
    syncs = {f"weights: {stream}": n for stream, n in series.by("sdpo_sync_failures_total", "stream").items()}
    found = series.by("sdpo_infrastructure_errors_total", "error") | restarts | syncs
    return {kind: int(number) for kind, number in found.items() if number > 0}

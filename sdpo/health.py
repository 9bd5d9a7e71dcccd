"""Alarms of a run: pure functions of the metrics of its steps and of `health` in the run file.

A rule looks at the history and says in one line what it saw, the threshold with its key, and what to try; or None.
The monitor's state is a function of the metrics alone, so that a resumed run gets it back from metrics.jsonl.
"""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sdpo.config.health import HealthConfig

CHANCE_SIGMAS = 3.0
"""A drop of the training pass rate below this many standard errors is chance."""
_REGULARISE = (
    "go on from an earlier checkpoint with a smaller learner.optimizer.learning_rate, or a teacher that follows more "
    "slowly (teacher.regularisation ema with a smaller rate, or trust_region)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """`name` is one of `RULES`; `message` is one line."""

    name: str
    step: int
    message: str


class History:
    """The metrics of all steps so far, by name. Values that are missing or not finite do not enter a series."""

    def __init__(self) -> None:
        self.step = 0
        self.newest: Mapping[str, float] = {}
        self._series: dict[str, list[float]] = {}

    def add(self, step: int, metrics: Mapping[str, float]) -> None:
        """Append one step."""
        self.step, self.newest = step, metrics
        for name, value in metrics.items():
            if math.isfinite(value):
                self._series.setdefault(name, []).append(value)

    def series(self, name: str) -> Sequence[float]:
        """Every finite value of a metric, oldest first."""
        return self._series.get(name, [])


Rule = Callable[[History, HealthConfig], str | None]


def entropy_collapse(history: History, config: HealthConfig) -> str | None:
    """The student has become sure without becoming better."""
    seen = _fall(history, config, "train/entropy", config.entropy_share)
    if seen is None or config.entropy_share is None:
        return None
    return f"entropy fell to {seen}; threshold: health.entropy_share={config.entropy_share:g}; {_REGULARISE}"


def length_collapse(history: History, config: HealthConfig) -> str | None:
    """Responses become short without becoming better."""
    seen = _fall(history, config, "rollout/response_tokens", config.length_share)
    if seen is None or config.length_share is None:
        return None
    return f"response tokens fell to {seen}; threshold: health.length_share={config.length_share:g}; {_REGULARISE}"


def pass_rate_collapse(history: History, config: HealthConfig) -> str | None:
    """The training pass rate of the window lies far below that of the best window before it, and not by chance."""
    share, width = config.pass_rate_share, config.window_steps
    rates, errors = history.series("rollout/pass_rate"), history.series("rollout/pass_rate_error")
    if share is None or len(rates) < 2 * width or len(errors) != len(rates):
        return None
    means = [statistics.fmean(rates[i : i + width]) for i in range(len(rates) - 2 * width + 1)]
    start = max(range(len(means)), key=means.__getitem__)
    best, now = means[start], statistics.fmean(rates[-width:])
    chance = CHANCE_SIGMAS * math.hypot(*errors[start : start + width], *errors[-width:]) / width
    if now >= share * best or best - now <= chance:
        return None
    return (
        f"the pass rate fell to {now:.3f} (mean of {width} steps) from {best:.3f} at its best; "
        f"threshold: health.pass_rate_share={share:g}; {_REGULARISE}"
    )


def heldout_collapse(history: History, config: HealthConfig) -> str | None:
    """Held-out pass@1 lies far below its best, and the 95 % intervals of the two do not overlap."""
    share = config.pass_rate_share
    names = ("heldout/pass@1", "heldout/pass@1_low", "heldout/pass@1_high")
    rates, lows, highs = (history.series(name) for name in names)
    if share is None or len(rates) < 2 or not len(rates) == len(lows) == len(highs):
        return None
    best = max(range(len(rates)), key=rates.__getitem__)
    if rates[-1] >= share * rates[best] or highs[-1] >= lows[best]:
        return None
    return (
        f"held-out pass@1 fell to {rates[-1]:.3f} from {rates[best]:.3f} at its best; "
        f"threshold: health.pass_rate_share={share:g}; {_REGULARISE}"
    )


def no_signal(history: History, config: HealthConfig) -> str | None:
    """Hardly an attempt teaches anything."""
    shares, least = history.series("signal/samples_fraction")[-config.window_steps :], config.min_signal_share
    if least is None or len(shares) < config.window_steps or (now := statistics.fmean(shares)) >= least:
        return None
    return (
        f"{now:.1%} of the attempts carry a signal (mean of {config.window_steps} steps); "
        f"threshold: health.min_signal_share={least:g}; use hindsight.include_feedback=true where the environment has "
        f"words, more batch.samples_per_task, or tasks that are solved neither always nor never"
    )


def mismatch(history: History, config: HealthConfig) -> str | None:
    """The engine samples from another distribution than the learner trains."""
    limits = (("engine_gap_mean", config.max_engine_gap_mean), ("engine_gap_p99", config.max_engine_gap_p99))
    for name, limit in limits:
        gap = history.newest.get(f"train/{name}", 0.0)
        if limit is not None and not gap <= limit:  # a gap that is not a number is one
            return (
                f"{name} of sampled tokens between engine and learner is {gap:.3g} nats; "
                f"threshold: health.max_{name}={limit:g}; compare dtype and sampling temperature of both, "
                f"try model.dtype=float32, or keep objective.tis_clip on"
            )
    return None


def not_finite(history: History, config: HealthConfig) -> str | None:
    """Loss or gradient is infinite or not a number."""
    limit = config.max_steps_not_finite
    if limit is None:
        return None
    skipped = history.newest.get("train/steps_not_finite", 0.0)
    bad = [name for name in ("train/loss", "train/grad_norm") if not math.isfinite(history.newest.get(name, 0.0))]
    if skipped <= limit and not bad:
        return None
    seen = f"{', '.join(bad)} not finite" if bad else f"{skipped:g} optimizer steps skipped, their gradient not finite"
    return (
        f"{seen}; threshold: health.max_steps_not_finite={limit}; use a smaller learner.optimizer.learning_rate, "
        f"set objective.is_clip and objective.tis_clip, or model.dtype=float32"
    )


RULES: dict[str, Rule] = {
    rule.__name__: rule
    for rule in (
        entropy_collapse,
        length_collapse,
        pass_rate_collapse,
        heldout_collapse,
        no_signal,
        mismatch,
        not_finite,
    )
}
"""Every alarm by name."""


class HealthMonitor:
    """Fed with every step in order. An episode of an alarm ends after `window_steps` steps without cause for it."""

    def __init__(self, config: HealthConfig) -> None:
        self._config = config
        self._history = History()
        self._last_seen: dict[str, int] = {}
        self.sounding: list[Alarm] = []

    def observe(self, step: int, metrics: Mapping[str, float | None]) -> list[Alarm]:
        """Judge one step (None: not finite). Returns the alarms whose episode begins; `sounding` are all of now."""
        self._history.add(step, {name: math.nan if v is None or math.isinf(v) else v for name, v in metrics.items()})
        self.sounding = [
            Alarm(name=name, step=step, message=message)
            for name, rule in RULES.items()
            if (message := rule(self._history, self._config)) is not None
        ]
        begun = [alarm for alarm in self.sounding if self._is_over(alarm.name, step)]
        self._last_seen |= {alarm.name: step for alarm in self.sounding}
        return begun

    def metrics(self) -> dict[str, float]:
        """`health/alarms`, how many sound now, and 1 or 0 for each by name."""
        names = {alarm.name for alarm in self.sounding}
        return {"health/alarms": float(len(names))} | {f"health/{name}": float(name in names) for name in RULES}

    def _is_over(self, name: str, step: int) -> bool:
        return name not in self._last_seen or step - self._last_seen[name] > self._config.window_steps


def _fall(history: History, config: HealthConfig, name: str, share: float | None) -> str | None:
    """What a metric fell to, if its window lies below `share` of the reference and no rise of the pass rate excuses."""
    values, width = history.series(name), config.window_steps
    if share is None or len(values) < 2 * width:
        return None
    reference, now = statistics.median(_reference(values, config)), statistics.fmean(values[-width:])
    rates = history.series("rollout/pass_rate")
    if now >= share * reference or (config.excusing_rise is not None and _rise(rates, config) >= config.excusing_rise):
        return None
    return f"{now:.3g} (mean of {width} steps) from {reference:.3g} (median of the steps before)"


def _rise(rates: Sequence[float], config: HealthConfig) -> float:
    """By how much the mean of the window lies above that of the reference."""
    if len(rates) < 2 * config.window_steps:
        return 0.0
    return statistics.fmean(rates[-config.window_steps :]) - statistics.fmean(_reference(rates, config))


def _reference(values: Sequence[float], config: HealthConfig) -> Sequence[float]:
    return values[-config.window_steps - config.reference_steps : -config.window_steps]

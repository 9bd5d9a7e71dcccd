"""Alarms of a run: one table of rules, which the monitor, the report and docs/health.md read.

A rule is a pure function of the metrics of the steps so far and of `health` in the run file. The monitor's state is a
function of the metrics alone, so a resumed run restores it from metrics.jsonl.
"""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sdpo.config.health import HealthConfig

CHANCE_SIGMAS = 3.0
"""A drop of the training pass rate below this many standard errors counts as chance."""
_PASS_RATE = "rollout/pass_rate"
_REWARD = "rollout/reward"
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
    """The metrics of all steps so far, by name. A series leaves out values that are missing or not finite."""

    def __init__(self) -> None:
        self.newest: Mapping[str, float] = {}
        self._series: dict[str, list[float]] = {}
        self._means: dict[tuple[str, int], list[float]] = {}

    def add(self, metrics: Mapping[str, float]) -> None:
        """Append the metrics of one step."""
        self.newest = metrics
        for name, value in metrics.items():
            if math.isfinite(value):
                self._series.setdefault(name, []).append(value)

    def series(self, name: str) -> Sequence[float]:
        """Return every finite value of a metric, oldest first."""
        return self._series.get(name, [])

    def window_means(self, name: str, width: int) -> Sequence[float]:
        """Return the mean of every `width` consecutive values of a metric, oldest first."""
        values, means = self.series(name), self._means.setdefault((name, width), [])
        means += [statistics.fmean(values[end - width : end]) for end in range(len(means) + width, len(values) + 1)]
        return means


@dataclass(frozen=True, slots=True)
class Rule:
    """One alarm.

    `thresholds`: the metrics that the alarm watches, each with the key of `health` that holds its threshold; a
    threshold of none switches that part off. `text`: when the alarm is raised, a clause. `remedy`: what to try.
    `check`: returns what it saw in words if the newest step is cause for the alarm, else None. `reference`: for a
    threshold that is a share of an earlier value, returns that value, or None while there are too few steps.
    """

    name: str
    thresholds: Mapping[str, str]
    check: Callable[[History, HealthConfig, str, float], str | None]
    text: str
    remedy: str = _REGULARISE
    reference: Callable[[History, HealthConfig, str], float | None] | None = None

    def message(self, history: History, config: HealthConfig) -> str | None:
        """Return what was seen, the threshold with its key and the remedy in one line; None if all is well."""
        for metric, key in self.thresholds.items():
            limit = getattr(config, key)
            if limit is not None and (seen := self.check(history, config, metric, limit)) is not None:
                return f"{seen}; threshold: health.{key}={limit:g}; {self.remedy}"
        return None


def lowest_healthy(best: float, share: float) -> float:
    """Return `share` of a best value; below 0, where a share would be higher, as much lower than `best`."""
    return share * best if best >= 0 else (2 - share) * best


def _median_before_window(history: History, config: HealthConfig, metric: str) -> float | None:
    """Return the median of the `reference_steps` values before the window."""
    values = history.series(metric)
    return statistics.median(_before_window(values, config)) if len(values) >= 2 * config.window_steps else None


def _best_window(history: History, config: HealthConfig, metric: str) -> float | None:
    """Return the highest mean of the windows that end before the newest one begins."""
    means = history.window_means(metric, config.window_steps)
    return max(means[: -config.window_steps], default=None)


def _fell_without_progress(history: History, config: HealthConfig, metric: str, share: float) -> str | None:
    reference, width = _median_before_window(history, config, metric), config.window_steps
    if reference is None or (now := history.window_means(metric, width)[-1]) >= share * reference:
        return None
    if config.excusing_rise is not None and _improves(history, config, config.excusing_rise):
        return None
    name = metric.partition("/")[2].replace("_", " ")
    return f"{name} fell to {now:.3g} (mean of {width} steps) from {reference:.3g} (median of the steps before)"


def _mean_fell(history: History, config: HealthConfig, metric: str, share: float) -> str | None:
    best, width = _best_window(history, config, metric), config.window_steps
    means, errors = history.window_means(metric, width), history.series(f"{metric}_error")
    if best is None or len(errors) != len(history.series(metric)):
        return None
    start, now = means.index(best), means[-1]
    chance = CHANCE_SIGMAS * math.hypot(*errors[start : start + width], *errors[-width:]) / width
    if now >= lowest_healthy(best, share) or best - now <= chance:
        return None
    what = metric.partition("/")[2].replace("_", " ")
    return f"the {what} fell to {now:.3f} (mean of {width} steps) from {best:.3f} at its best"


def _heldout_fell(history: History, config: HealthConfig, metric: str, share: float) -> str | None:
    rates, lows, highs = (history.series(name) for name in (metric, f"{metric}_low", f"{metric}_high"))
    if len(rates) < 2 or not len(rates) == len(lows) == len(highs):
        return None
    best = max(range(len(rates)), key=rates.__getitem__)
    if rates[-1] >= lowest_healthy(rates[best], share) or highs[-1] >= lows[best]:
        return None
    return f"held-out {metric.partition('/')[2]} fell to {rates[-1]:.3f} from {rates[best]:.3f} at its best"


def _few_signals(history: History, config: HealthConfig, metric: str, least: float) -> str | None:
    means = history.window_means(metric, config.window_steps)
    if not means or means[-1] >= least:
        return None
    return f"{means[-1]:.1%} of the attempts carry a signal (mean of {config.window_steps} steps)"


def _gap_is_wide(history: History, config: HealthConfig, metric: str, limit: float) -> str | None:
    gap = history.newest.get(metric, 0.0)
    if gap <= limit:  # False for a gap that is not a number, which is cause for the alarm
        return None
    return f"{metric.partition('/')[2]} of sampled tokens between engine and learner is {gap:.3g} nats"


def _is_not_finite(history: History, config: HealthConfig, metric: str, limit: float) -> str | None:
    bad = [name for name in ("train/loss", "train/grad_norm") if not math.isfinite(history.newest.get(name, 0.0))]
    if bad:
        return f"{', '.join(bad)} not finite"
    skipped = history.newest.get(metric, 0.0)
    return None if skipped <= limit else f"{skipped:g} optimizer steps skipped, their gradient not finite"


def _improves(history: History, config: HealthConfig, least: float) -> bool:
    """Return whether the pass rate rises by `least` or, where rewards are watched, the reward by this share of it."""
    rewards = history.series(_REWARD)
    if config.reward_share is not None and len(rewards) >= 2 * config.window_steps:
        size = abs(statistics.fmean(_before_window(rewards, config)))
        if (rise := _rise(rewards, config)) > 0 and rise >= least * size:
            return True
    return _rise(history.series(_PASS_RATE), config) >= least


def _rise(rates: Sequence[float], config: HealthConfig) -> float:
    """Return by how much the mean of the window lies above that of the reference steps."""
    if len(rates) < 2 * config.window_steps:
        return 0.0
    return statistics.fmean(rates[-config.window_steps :]) - statistics.fmean(_before_window(rates, config))


def _before_window(values: Sequence[float], config: HealthConfig) -> Sequence[float]:
    return values[-config.window_steps - config.reference_steps : -config.window_steps]


_RULES = (
    Rule(
        "entropy_collapse",
        {"train/entropy": "entropy_share"},
        _fell_without_progress,
        "the student's entropy in the window falls below this share of the reference, and the pass rate does not rise",
        reference=_median_before_window,
    ),
    Rule(
        "length_collapse",
        {"rollout/response_tokens": "length_share"},
        _fell_without_progress,
        "the response length in the window falls below this share of the reference, and the pass rate does not rise",
        reference=_median_before_window,
    ),
    Rule(
        "pass_rate_collapse",
        {_PASS_RATE: "pass_rate_share"},
        _mean_fell,
        "the training pass rate in the window falls below this share of the best window before it, by more than "
        f"{CHANCE_SIGMAS:g} standard errors",
        reference=_best_window,
    ),
    Rule(
        "heldout_collapse",
        {"heldout/pass@1": "pass_rate_share"},
        _heldout_fell,
        "held-out pass@1 falls below this share of its best value, and the 95 % intervals of the two do not overlap",
    ),
    Rule(
        "reward_collapse",
        {_REWARD: "reward_share"},
        _mean_fell,
        "the training reward in the window falls below this share of the best window before it, by more than "
        f"{CHANCE_SIGMAS:g} standard errors",
        reference=_best_window,
    ),
    Rule(
        "heldout_reward_collapse",
        {"heldout/reward": "reward_share"},
        _heldout_fell,
        "the held-out reward falls below this share of its best value, and the 95 % intervals of the two do not "
        "overlap",
    ),
    Rule(
        "no_signal",
        {"signal/samples_fraction": "min_signal_share"},
        _few_signals,
        "the share of attempts in the window that carry a signal falls below this",
        "use hindsight.include_feedback=true where the environment gives feedback, more batch.samples_per_task, or "
        "tasks that are solved neither always nor never",
    ),
    Rule(
        "mismatch",
        {"train/engine_gap_mean": "max_engine_gap_mean", "train/engine_gap_p99": "max_engine_gap_p99"},
        _gap_is_wide,
        "in one step, the log-probs of sampled tokens differ by more than this many nats between engine and learner, "
        "in the mean or at the 99th percentile",
        "compare dtype and sampling temperature of both, try model.dtype=float32, or keep objective.tis_clip on",
    ),
    Rule(
        "not_finite",
        {"train/steps_not_finite": "max_steps_not_finite"},
        _is_not_finite,
        "loss or gradient norm is not finite, or more optimizer steps of a batch than this are skipped because their "
        "gradient is not finite",
        "use a smaller learner.optimizer.learning_rate, set objective.is_clip and objective.tis_clip, or "
        "model.dtype=float32",
    ),
)
RULES = {rule.name: rule for rule in _RULES}
"""Every alarm by name."""


class HealthMonitor:
    """Judges the steps of a run; `observe` every step in order.

    An episode of an alarm ends after `window_steps` steps without cause for it. `sounding`: the alarms for which the
    newest step is cause.
    """

    def __init__(self, config: HealthConfig) -> None:
        self._config = config
        self._history = History()
        self._last_seen: dict[str, int] = {}
        self.sounding: list[Alarm] = []

    def observe(self, step: int, metrics: Mapping[str, float | None]) -> list[Alarm]:
        """Judge the metrics of one step (None: not finite). Returns the alarms whose episode begins."""
        self._history.add({name: math.nan if v is None or math.isinf(v) else v for name, v in metrics.items()})
        self.sounding = [
            Alarm(name=name, step=step, message=message)
            for name, rule in RULES.items()
            if (message := rule.message(self._history, self._config)) is not None
        ]
        begun = [alarm for alarm in self.sounding if self._is_over(alarm.name, step)]
        self._last_seen |= {alarm.name: step for alarm in self.sounding}
        return begun

    def metrics(self) -> dict[str, float]:
        """Return `health/alarms`, the number of alarms that are on, and `health/NAME`, 1 or 0, for each."""
        names = {alarm.name for alarm in self.sounding}
        return {"health/alarms": float(len(names))} | {f"health/{name}": float(name in names) for name in RULES}

    def _is_over(self, name: str, step: int) -> bool:
        return name not in self._last_seen or step - self._last_seen[name] > self._config.window_steps

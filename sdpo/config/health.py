"""Alarm thresholds and what an alarm does."""

from typing import Literal, Self

from pydantic import model_validator

from sdpo.bounds import Clip, Count, CountOrZero, Share
from sdpo.section import Section


class HealthConfig(Section):
    """`health`: when an alarm is raised and what it does. A threshold of none switches its alarm off."""

    on_alarm: Literal["warn", "stop"] = "warn"
    """warn: write a checkpoint, a line in alarms.jsonl and a line on the terminal; stop: write these, then end the run
    with exit code 3."""
    window_steps: Count = 5
    """Number of newest steps whose mean is judged. An alarm ends after this many steps without cause."""
    reference_steps: Count = 20
    """Number of steps before the window; entropy and length are compared with their median over these."""
    entropy_share: Share | None = 0.3
    """Alarm when the student's entropy falls below this share of its reference."""
    length_share: Share | None = 0.4
    """Alarm when the mean response length falls below this share of its reference."""
    excusing_rise: Share | None = 0.05
    """Falling entropy or length is no alarm while the pass rate rises by at least this from reference to window; none:
    it is always an alarm. With reward_share also while the reward rises by at least this share of its reference."""
    pass_rate_share: Share | None = 0.75
    """Alarm when the pass rate, in training or on held-out tasks, falls below this share of its best so far and the
    drop is more than chance."""
    reward_share: Share | None = None
    """Alarm when the mean reward, in training or on held-out tasks, falls below this share of its best so far and the
    drop is more than chance. For rewards that are not 0 or 1; of a best below 0, a drop by the rest of its size."""
    min_signal_share: Share | None = 0.05
    """Alarm when fewer than this share of the judged attempts carry a signal."""
    max_engine_gap_mean: Clip | None = 0.1
    """Alarm when engine and learner differ by more than this in the log-probs of sampled tokens, on average."""
    max_engine_gap_p99: Clip | None = 1.0
    """Alarm when 1 % of the sampled tokens differ by more than this in log-prob between engine and learner."""
    max_steps_not_finite: CountOrZero | None = 0
    """Optimizer steps of one batch that may be skipped because the gradient is not finite; more raise an alarm."""

    @model_validator(mode="after")
    def _reference_covers_a_window(self) -> Self:
        if self.reference_steps < self.window_steps:
            raise ValueError(
                f"health.reference_steps={self.reference_steps}: allowed: at least "
                f"health.window_steps={self.window_steps}"
            )
        return self

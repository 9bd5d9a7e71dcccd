"""The figures of a live display: how far a run is, its latest metrics, and the estimated time left.

Plain data with an injected clock; `progress.view` draws it and `progress.progress` passes the run's events on to it.
"""

import math
import statistics
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from orchestrator.events import (
    AttemptJudged,
    AttemptSampled,
    Event,
    GroupScored,
    IncarnationBegan,
    StageEntered,
    StepRecorded,
)
from sdpo.config import RunConfig

Stage = Literal["generate", "judge", "score", "train", "publish", "evaluate", "save"]
RECENT_STEPS = 8
"""The time left is estimated from the median of this many steps, so that one slow step does not matter."""


@dataclass(slots=True)
class Phase:
    """A stage of the current step. `expected` is its number of units, 0 if they are not counted."""

    began_s: float
    expected: int = 0
    ended_s: float | None = None


class RunState:
    """The figures behind the display. Batches are counted from 0: batch b is step b + 1."""

    def __init__(self, config: RunConfig, clock: Callable[[], float]) -> None:
        """`clock` gives monotonic seconds."""
        self.config, self._clock = config, clock
        self.groups = config.batch.tasks
        self.attempts = config.batch.tasks * config.batch.samples_per_task
        self.steps_done = 0
        self.since_s = clock()
        self.latest = dict[str, float]()
        """The last finite value of every metric."""
        self.base: Mapping[str, Any] = {}
        """The record of step 0: what was measured before training."""
        self.is_starting = True
        """Until an incarnation's first stage."""
        self.phases = dict[Stage, Phase]()
        self._counts = Counter[tuple[Stage, int | None]]()
        self._step_s = deque[float](maxlen=RECENT_STEPS)
        self._evaluate_s = deque[float](maxlen=RECENT_STEPS)
        self._step_began_s: float | None = None

    @property
    def now_s(self) -> float:
        return self._clock()

    @property
    def is_over(self) -> bool:
        return self.steps_done >= self.config.steps

    @property
    def is_before_training(self) -> bool:
        """Whether the base model is being measured."""
        return self.steps_done == 0 and not self.base and "evaluate" in self.phases

    @property
    def evaluates_now(self) -> bool:
        """Whether the current step ends with an evaluation."""
        return self.config.is_evaluated(self.steps_done + 1)

    @property
    def step_s(self) -> float | None:
        """Median of the recent steps without their evaluations, in seconds; None before the first."""
        return statistics.median(self._step_s) if self._step_s else None

    @property
    def left_s(self) -> float | None:
        """Seconds to the end of the last step, evaluations that are due included; None before the first step."""
        if self.step_s is None or self.is_over:
            return 0.0 if self.is_over else None
        due = sum(self.config.is_evaluated(step) for step in range(self.steps_done + 1, self.config.steps + 1))
        evaluate_s = statistics.median(self._evaluate_s) if self._evaluate_s else 0.0
        left_s = (self.config.steps - self.steps_done) * self.step_s + due * evaluate_s
        gone_s = 0.0 if self._step_began_s is None else self.now_s - self._step_began_s
        return left_s - min(gone_s, self.step_s + self.evaluates_now * evaluate_s)

    def count(self, stage: Stage) -> int:
        """Return the finished units of the current step: attempts, groups, or samples of the evaluation."""
        return self._counts[stage, None if stage == "evaluate" else self.steps_done]

    def hear(self, event: Event) -> None:
        """Follow the run."""
        match event:
            case IncarnationBegan():
                self.begin(event.steps_done, event.records)
            case StageEntered():
                self.enter(event.stage, event.expected)
            case AttemptSampled():
                self.add("generate", event.batch_index)
            case AttemptJudged():
                self.add("evaluate" if event.batch_index is None else "judge", event.batch_index)
            case GroupScored(by="teacher"):
                self.add("score", event.batch_index)
            case StepRecorded():
                self.step_done(event.step, event.metrics)

    def begin(self, steps_done: int, records: Sequence[Mapping[str, Any]]) -> None:
        """Start again after `steps_done` steps, whose rows of metrics.jsonl are `records`."""
        self.steps_done, self.is_starting = steps_done, True
        self._counts.clear()
        self.phases = {}
        self._step_began_s = None
        self._step_s.clear()
        for record in records:
            self._observe(record["step"], record)
            if record["step"] > 0 and record.get("time/step_s") is not None:
                self._step_s.append(record["time/step_s"] - (record.get("time/evaluate_s") or 0.0))

    def enter(self, stage: Stage, expected: int) -> None:
        """Begin `stage` and end the one before."""
        self.is_starting = False
        if stage == "evaluate":
            self._counts[stage, None] = 0
        for phase in self.phases.values():
            phase.ended_s = phase.ended_s or self.now_s
        self.phases = {**self.phases, stage: Phase(self.now_s, expected)}

    def add(self, stage: Stage, batch: int | None) -> None:
        """Count one more attempt or group of a batch, or one more sample of the evaluation (None)."""
        self.is_starting = False
        self._counts[stage, batch] += 1
        if self._step_began_s is None and batch is not None:
            self._step_began_s = self.now_s

    def step_done(self, step: int, metrics: Mapping[str, float]) -> None:
        """Take the metrics of a recorded step; step 0 is the measurement before training."""
        self._observe(step, metrics)
        if step > 0:
            if self._step_began_s is not None:
                took_s = self.now_s - self._step_began_s - metrics.get("time/evaluate_s", 0.0)
                self._step_s.append(max(0.0, took_s))
            self._step_began_s = self.now_s
        self.steps_done = step
        self.phases = {}
        for key in [key for key in self._counts if key[1] is not None and key[1] < step]:
            del self._counts[key]

    def _observe(self, step: int, metrics: Mapping[str, Any]) -> None:
        finite = {name: float(v) for name, v in metrics.items() if isinstance(v, int | float) and math.isfinite(v)}
        self.latest = {**self.latest, **finite}
        if step == 0:
            self.base = dict(finite)
        if "time/evaluate_s" in finite:
            self._evaluate_s.append(finite["time/evaluate_s"])

"""The charts of the report as a table. To show another metric, add a row to `CHARTS`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from orchestrator.commands.report.palette import OTHER_COLOUR, PART_COLOURS
from orchestrator.commands.report.stages import OTHER, STEP_STAGES, kind_shares, stage_seconds, state_shares
from sdpo.telemetry.labels import BUSY, ROLES, RUN_ACTOR, STAGES


@dataclass(frozen=True, slots=True)
class Axis:
    """The vertical axis of a curve.

    `low`, `high`: values that are always shown. `log`: logarithmic, for values above 0. `unit`: what a value is divided
    by before it is drawn.
    """

    title: str
    low: float | None = None
    high: float | None = None
    log: bool = False
    unit: float = 1.0


@dataclass(frozen=True, slots=True)
class Chart:
    """The curve of one metric over steps, with the limits and the beginnings of its alarms.

    `metric` may hold one `*`: then every recorded metric that matches has its curve, and `{}` in `title` is what the
    `*` stands for. `better`: which direction is better. `moving`: draw the mean over the alarm's window against the
    alarm's moving threshold, not the metric itself. `equal_to`: a metric; while both are equal in every record, a
    sentence says so in place of the curve. `optional`: left out where no run recorded it.
    """

    chapter: str
    metric: str
    title: str
    axis: Axis
    better: str
    caption: str = ""
    moving: bool = False
    equal_to: str = ""
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Bars:
    """Stacked bars over steps, a chart for every group of runs. `name` begins with the anchor of the chapter.

    `parts` returns the parts of one step by name, or None for a record without them; `metrics` names what it reads.
    `colours`: by part, from the bottom of a bar up; None for kinds of verdicts. `unit`: title of the vertical axis,
    which ends at 1 for a share.
    """

    name: str
    title: str
    better: str
    metrics: str
    unit: str
    parts: Callable[[Mapping[str, Any]], Mapping[str, float] | None]
    colours: Mapping[str, str] | None = None
    caption: str = ""
    most_bars: int = 40

    @property
    def chapter(self) -> str:
        """The anchor of the chapter."""
        return self.name.partition("-")[0]


@dataclass(frozen=True, slots=True)
class Chapter:
    """Charts that belong together. `anchor` is unique in the report.

    `only_recorded`: the names of metrics; charts without values are then left out, and a chapter without charts says
    that these metrics were not recorded.
    """

    anchor: str
    title: str
    text: str = ""
    only_recorded: str = ""


SHARE, REWARD = Axis("share of attempts", 0.0, 1.0), Axis("reward")
NATS, NATS_BELOW_0, NATS_LOG = Axis("nats", 0.0), Axis("nats", high=0.0), Axis("nats", log=True)
TOKENS, TOKENS_PER_S, TOKEN_SHARE = Axis("tokens", 0.0), Axis("tokens a second", 0.0), Axis("share of tokens", 0.0)
SECONDS, MIB, NORM = Axis("seconds", 0.0), Axis("MiB", 0.0, unit=2.0**20), Axis("norm", log=True)
OPTIMIZER_STEPS = Axis("optimizer steps", 0.0)
HIGHER, LOWER, NEITHER = "higher is better", "lower is better", "neither is better by itself"
FASTER, FASTER_STEP, HEALTHY = "higher is faster", "lower is faster", "healthy above the dotted line"
PASSED, BUSIER = "more passed is better", "more busy is better"
SUCCEEDED = "more of the kinds that are a success is better"
NEAR_0 = "nearer to 0: the student does what the teacher would"
CERTAIN = "falls as the model becomes more certain; near 0 it no longer explores"

BAND = "Band: 95 % interval, over seeds where there are several, else over held-out tasks."
BEST = "The highest reward of the attempts at a task, mean over the tasks of the step."
GAP = (
    "Mean of log q − log p over the sampled tokens: below 0 where the teacher, which has seen the feedback, would not "
    "have written them."
)
GENERATED = "Tokens that the model wrote, divided by the time from the start of a batch to its last group."
TRAINED = "Tokens through the learner, prompts included, divided by the time that the learner took."
PARTS = "The parts follow each other and add up to the time of the step."
IDLE = "Above busy: idle, by the first stage of the pipeline that was under way anywhere."
STEP = " ".join(f"{name}: {what}." for name, (_, what) in STEP_STAGES.items()) + " other: the rest of the step."
WAITS = (
    "How the actors of every role spend their time: busy with a call of the orchestrator, or idle. The colour of idle "
    f"time is the stage that the actors wait for: the first of {', '.join(STAGES)} that is under way, or the "
    "orchestrator if none is."
)
RESIDENT = "Resident memory of all processes of a role together, as the operating system counts it."
STAGE_COLOURS = dict(zip(STEP_STAGES, PART_COLOURS, strict=False)) | {OTHER: OTHER_COLOUR}
STATE_COLOURS = {BUSY: "#0072B2"} | dict(zip(STAGES, PART_COLOURS, strict=True)) | {RUN_ACTOR: OTHER_COLOUR}

TIME_SHARE = "share of time"
IDLE_BARS = [
    Bars(
        f"idle-{role}", f"Busy and idle, {role}", BUSIER, f"time/busy/{role}_s", TIME_SHARE, parts, STATE_COLOURS, IDLE
    )
    for role in ROLES
    for parts in [partial(state_shares, role=role)]
]

CHAPTERS = (
    Chapter("learning", "Learning curves"),
    Chapter("responses", "Response length"),
    Chapter("teacher", "Teacher and entropy"),
    Chapter("outcomes", "Outcomes"),
    Chapter("time", "Time per stage", STEP),
    Chapter("idle", "Busy and idle actors", WAITS, only_recorded="time/busy/*, time/idle/*"),
    Chapter("memory", "Memory", RESIDENT, only_recorded="memory/*_bytes"),
    Chapter("speed", "Throughput", only_recorded="speed/*"),
    Chapter("health", "Health"),
)
CHARTS: tuple[Chart | Bars, ...] = (
    Chart("learning", "heldout/pass@1", "Held-out pass@1", SHARE, HIGHER, BAND),
    Chart(
        "learning", "heldout/reward", "Held-out reward", REWARD, HIGHER, BAND, equal_to="heldout/pass@1", optional=True
    ),
    Chart("learning", "rollout/pass_rate", "Training pass rate", SHARE, HIGHER),
    Chart("learning", "rollout/reward", "Training reward", REWARD, HIGHER, equal_to="rollout/pass_rate"),
    Chart("learning", "groups/reward_best", "Best reward of a task's attempts", REWARD, HIGHER, BEST, optional=True),
    Chart("learning", "rollout/reward_best", "Best reward of a step", REWARD, HIGHER, optional=True),
    Chart("responses", "rollout/response_tokens", "Response length in training", TOKENS, NEITHER),
    Chart("responses", "heldout/response_tokens", "Response length, held-out", TOKENS, NEITHER),
    Chart("responses", "rollout/truncated_fraction", "Cut at the token limit", SHARE, LOWER),
    Chart("teacher", "train/teacher_gap", "Teacher gap", NATS_BELOW_0, NEAR_0, GAP),
    Chart("teacher", "train/teacher_kl", "Divergence between student and teacher", NATS, "lower: the two agree"),
    Chart("teacher", "train/entropy", "Entropy of the student", NATS, CERTAIN),
    Chart("teacher", "train/teacher_entropy", "Entropy of the teacher", NATS, NEITHER),
    Bars("outcomes", "Outcomes of attempts", PASSED, "verdict/*", "share of attempts", kind_shares, most_bars=80),
    Bars("time", "Time of a step", FASTER_STEP, "time/step_s", "seconds a step", stage_seconds, STAGE_COLOURS, PARTS),
    Chart("time", "time/step_s", "Seconds a step", SECONDS, FASTER_STEP),
    *IDLE_BARS,
    Chart("memory", "memory/*_bytes", "Memory: {}", MIB, LOWER),
    Chart("speed", "speed/generated_tokens_per_s", "Tokens generated", TOKENS_PER_S, FASTER, GENERATED),
    Chart("speed", "speed/trained_tokens_per_s", "Tokens trained", TOKENS_PER_S, FASTER, TRAINED),
    Chart("health", "rollout/pass_rate", "Pass rate against its alarm", SHARE, HEALTHY, moving=True),
    Chart(
        "health",
        "rollout/reward",
        "Reward against its alarm",
        REWARD,
        HEALTHY,
        moving=True,
        equal_to="rollout/pass_rate",
    ),
    Chart("health", "train/entropy", "Entropy against its alarm", NATS, HEALTHY, moving=True),
    Chart("health", "rollout/response_tokens", "Response length against its alarm", TOKENS, HEALTHY, moving=True),
    Chart("health", "signal/samples_fraction", "Attempts with a signal", SHARE, HIGHER),
    Chart("health", "train/engine_gap_mean", "Engine against learner, mean", NATS_LOG, LOWER),
    Chart("health", "train/engine_gap_p99", "Engine against learner, worst 1 %", NATS_LOG, LOWER),
    Chart("health", "train/grad_norm", "Gradient norm, before clipping", NORM, "steady"),
    Chart("health", "train/steps_not_finite", "Optimizer steps skipped", OPTIMIZER_STEPS, LOWER),
    Chart("health", "train/*_clipped_fraction", "Tokens at the cap of the ratio: {}", TOKEN_SHARE, LOWER),
)
"""In the order of the page."""

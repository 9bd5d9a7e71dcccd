"""The charts of the report, chapter by chapter."""

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.report.bars import MOST_BARS, bars_caption, stacked_spec
from orchestrator.report.curves import metric_figure
from orchestrator.report.data import Group, Report
from orchestrator.report.figure import Figure
from orchestrator.report.idle import idle_figures
from orchestrator.report.lines import Axis
from orchestrator.report.palette import OTHER_COLOUR, PART_COLOURS, kind_colours
from orchestrator.report.resources import memory_figures, speed_figures
from orchestrator.report.stages import OTHER, STAGES, Part, binned_parts, highest_bar, kind_shares, stage_seconds
from sdpo.telemetry.labels import STAGES as STAGES_IN_ORDER

RATE = Axis(title="share of attempts", low=0.0, high=1.0)
NATS = Axis(title="nats")
WAITS = (
    "Time of every role's actors: busy with a call of the orchestrator, or idle. The colour of idle time is the stage "
    "that held everybody up: the first one under way of "
    + ", ".join(STAGES_IN_ORDER)
    + "; the orchestrator if none was."
)
NO_TEACHER = "the objective has no teacher in hindsight"


@dataclass(frozen=True, slots=True, kw_only=True)
class Chapter:
    """Figures that belong together. `anchor` is unique in the report; `text` is plain."""

    anchor: str
    title: str
    text: str = ""
    figures: Sequence[Figure]


def chapters(report: Report) -> list[Chapter]:
    """All of them but health, which has a panel of its own."""
    memory = "Of the processes of every role together, as the operating system counts it."
    return [
        _learning(report),
        _responses(report),
        _teacher(report),
        _outcomes(report),
        _time(report),
        Chapter(anchor="idle", title="Who waits for whom", text=WAITS, figures=idle_figures(report)),
        Chapter(anchor="memory", title="Memory", text=memory, figures=memory_figures(report)),
        Chapter(anchor="speed", title="Throughput", figures=speed_figures(report)),
    ]


def _learning(report: Report) -> Chapter:
    caption = "Band: 95 % interval, over seeds where there are several, else over held-out tasks."
    figures = [
        metric_figure(report, "heldout/pass@1", "Held-out pass@1", RATE, better="higher is better", caption=caption),
        metric_figure(report, "rollout/pass_rate", "Training pass rate", RATE, better="higher is better"),
    ]
    differs = any(
        r.get("rollout/reward") != r.get("rollout/pass_rate") for run in report.runs for r in run.view.metrics
    )
    if differs:
        axis = Axis(title="reward")
        figures.append(metric_figure(report, "rollout/reward", "Training reward", axis, better="higher is better"))
    same = "" if differs else "The training reward is 1 for a pass and 0 otherwise: its mean is the pass rate."
    return Chapter(anchor="learning", title="Learning curves", text=same, figures=figures)


def _responses(report: Report) -> Chapter:
    length = Axis(title="tokens", low=0.0)
    neither = "neither is better by itself"
    return Chapter(
        anchor="responses",
        title="Response length",
        figures=[
            metric_figure(report, "rollout/response_tokens", "Response length in training", length, better=neither),
            metric_figure(report, "heldout/response_tokens", "Response length, held-out", length, better=neither),
            metric_figure(
                report, "rollout/truncated_fraction", "Cut at the token limit", RATE, better="lower is better"
            ),
        ],
    )


def _teacher(report: Report) -> Chapter:
    gap = "Mean of log q − log p over the sampled tokens: below 0 where the teacher, who has seen the feedback, "
    return Chapter(
        anchor="teacher",
        title="Teacher and entropy",
        figures=[
            metric_figure(
                report,
                "train/teacher_gap",
                "Teacher gap",
                Axis(title="nats", high=0.0),
                better="nearer to 0: the student does what the teacher would",
                caption=gap + "would not have written them.",
                why_missing=NO_TEACHER,
            ),
            metric_figure(
                report,
                "train/teacher_kl",
                "Divergence between student and teacher",
                Axis(title="nats", low=0.0),
                better="lower: the two agree",
                why_missing=NO_TEACHER,
            ),
            metric_figure(
                report,
                "train/entropy",
                "Entropy of the student",
                Axis(title="nats", low=0.0),
                better="falls as the model gets surer; near 0 it explores no more",
            ),
            metric_figure(
                report,
                "train/teacher_entropy",
                "Entropy of the teacher",
                Axis(title="nats", low=0.0),
                better="neither is better by itself",
                why_missing=NO_TEACHER,
            ),
        ],
    )


def _outcomes(report: Report) -> Chapter:
    colours = kind_colours(name.removeprefix("verdict/") for name in report.metrics("verdict/"))
    figures = []
    for place, group in enumerate(report.groups, 1):
        tables = [(r["step"], shares) for run in group.runs for r in run.view.metrics if (shares := kind_shares(r))]
        parts = binned_parts(tables, 2 * MOST_BARS)
        figures.append(
            Figure(
                name=f"outcomes-{place}",
                title=f"Outcomes of attempts: {group.title}",
                better="more passed is better",
                caption=bars_caption(len(group.runs), parts, "") if parts else "Not recorded: verdict/*.",
                spec=stacked_spec(parts, colours, y_title="share of attempts", unit="share", y_max=1),
                key=tuple(colours.items()),
            )
        )
    return Chapter(anchor="outcomes", title="Outcomes", figures=figures)


def _time(report: Report) -> Chapter:
    colours = dict(zip(STAGES, PART_COLOURS, strict=False)) | {OTHER: OTHER_COLOUR}
    parts_by_group = [_stage_parts(group) for group in report.groups]
    highest = max((highest_bar(parts) for parts in parts_by_group), default=0.0)
    figures = []
    for place, (group, parts) in enumerate(zip(report.groups, parts_by_group, strict=True), 1):
        words = "The parts follow each other and add up to the time of the step."
        figures.append(
            Figure(
                name=f"time-{place}",
                title=f"Time of a step: {group.title}",
                better="lower is faster",
                caption=bars_caption(len(group.runs), parts, words) if parts else "Not recorded: time/step_s.",
                spec=stacked_spec(parts, colours, y_title="seconds a step", unit="seconds a step", y_max=highest),
                key=tuple(colours.items()),
            )
        )
    text = " ".join(f"{name}: {what}." for name, (_, what) in STAGES.items()) + " other: the rest of the step."
    return Chapter(anchor="time", title="Time per stage", text=text, figures=[*figures, _step_time(report)])


def _stage_parts(group: Group) -> list[Part]:
    tables = [(r["step"], spent) for run in group.runs for r in run.view.metrics if (spent := stage_seconds(r))]
    return binned_parts(tables, MOST_BARS)


def _step_time(report: Report) -> Figure:
    return metric_figure(
        report, "time/step_s", "Seconds a step", Axis(title="seconds", low=0.0), better="lower is faster"
    )

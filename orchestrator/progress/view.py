"""Renders the state of a run as a terminal display, and a step as a line."""

from collections.abc import Mapping
from typing import Any, get_args

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from orchestrator.progress.state import RunState, Stage
from sdpo.show import show_duration

WIDTH, BAR_WIDTH = 88, 28
SHOWN = (
    ("reward", "rollout/reward", "{:.3f}"),
    ("loss", "train/loss", "{:.4f}"),
    ("gap", "train/teacher_gap", "{:+.3f}"),
    ("grad", "train/grad_norm", "{:.2f}"),
    ("tokens", "rollout/response_tokens", "{:.0f}"),
    ("best reward", "rollout/reward_best", "{:.3f}"),
    ("held-out pass@1", "heldout/pass@1", "{:.3f}"),
    ("held-out reward", "heldout/reward", "{:.3f}"),
    ("repaired by feedback", "repair/pass@1", "{:.3f}"),
    ("s", "time/step_s", "{:.1f}"),
    ("tokens/s", "speed/generated_tokens_per_s", "{:.0f}"),
)
"""Name, metric and format of the values in a step's line."""
SAME = {
    "rollout/reward_best": ("rollout/reward", "rollout/pass_rate"),
    "heldout/reward": ("heldout/reward", "heldout/pass@1"),
}
"""Metrics that a step's line leaves out where these two are equal: rewards are then 0 and 1."""


def step_line(state: RunState, step: int, metrics: Mapping[str, float]) -> str:
    """Return the line of a step: its metrics and the time left."""
    hidden = {key for key, (one, other) in SAME.items() if metrics.get(one) == metrics.get(other)}
    shown = [(name, key, form) for name, key, form in SHOWN if key in metrics and key not in hidden]
    parts = [f"{name} {form.format(metrics[key])}" for name, key, form in shown]
    if step > 0 and state.left_s:
        parts.append(f"left {show_duration(state.left_s)}")
    return f"step {step}/{state.config.steps}  " + "  ".join(parts)


def picture(state: RunState) -> RenderableType:
    """Return the live display."""
    stages = Text("the last checkpoint and the model are written\n") if state.is_over else _stages(state)
    return Panel(
        Group(_head(state), Text(), stages, Text(), _figures(state)),
        title=Text(state.config.name, style="bold"),
        title_align="left",
        border_style="dim",
        width=WIDTH,
    )


def _head(state: RunState) -> RenderableType:
    steps = state.config.steps
    words = f"{show_duration(state.now_s - state.since_s)} so far"
    if state.is_starting:
        words += ", actors are starting"
    elif not state.is_over and state.left_s is not None:
        words += f", {show_duration(state.left_s)} left"
    name = "all steps done" if state.is_over else f"step {state.steps_done + 1} of {steps}"
    if state.is_before_training:
        name = "before training"
    row = Table.grid(padding=(0, 2))
    row.add_row(Text(name, style="bold"), _bar(state.steps_done, steps), Text(words))
    return row


def _stages(state: RunState) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    table.add_column(width=8)
    table.add_column(width=BAR_WIDTH)
    table.add_column()
    for stage in get_args(Stage):
        if stage != "score" or state.config.uses_teacher:
            table.add_row(stage, *_stage(state, stage))
    return table


def _stage(state: RunState, stage: Stage) -> tuple[RenderableType, RenderableType]:
    """Return the bar and the text of one stage."""
    phase, done = state.phases.get(stage), state.count(stage)
    if stage in ("generate", "judge", "score"):
        expected = state.groups if stage == "score" else state.attempts
        is_past = any(name in state.phases for name in ("train", "publish"))  # what was lost is never counted
        return _bar(expected if is_past else done, expected), Text(f"{done} of {expected}")
    if phase is None:
        is_skipped = stage == "evaluate" and not state.evaluates_now and not state.is_before_training
        return _bar(0, 1), Text("not after this step" if is_skipped else "", style="dim")
    seconds = (phase.ended_s or state.now_s) - phase.began_s
    words = f"{done} of {phase.expected}, {seconds:.1f} s" if phase.expected else f"{seconds:.1f} s"
    is_over = phase.ended_s is not None
    share = 1.0 if is_over else done / phase.expected if phase.expected else None
    return _bar(share, 1), Text(words)


def _figures(state: RunState) -> RenderableType:
    now = state.latest
    step = "" if state.step_s is None else f"{state.step_s:.1f} s"
    before = _form(state.base, "heldout/pass@1", "{:.3f}")
    alarms = _form(now, "health/alarms", "{:.0f}")
    alarm_style = "bold red" if now.get("health/alarms") else "bold"
    rows = (
        (_pair("reward", _form(now, "rollout/reward", "{:.3f}")), _pair("held-out pass@1", _heldout(state))),
        (_pair("response", _form(now, "rollout/response_tokens", "{:.0f} tokens")), _pair("before training", before)),
        (_pair("speed", _form(now, "speed/generated_tokens_per_s", "{:,.0f} tokens/s")), _pair("a step", step)),
        (_pair("loss", _form(now, "train/loss", "{:.4f}")), _pair("alarms", alarms, alarm_style)),
    )
    table = Table.grid(padding=(0, 2))
    for left, right in rows:
        table.add_row(*left, *right)
    return table


def _heldout(state: RunState) -> str:
    forms = {"heldout/pass@1": "{:.3f}", "heldout/pass@1_low": " ({:.3f} to ", "heldout/pass@1_high": "{:.3f})"}
    return "".join(_form(state.latest, name, form) for name, form in forms.items())


def _form(metrics: Mapping[str, Any], name: str, form: str) -> str:
    return form.format(metrics[name]) if name in metrics else ""


def _pair(name: str, value: str, style: str = "bold") -> tuple[Text, Text]:
    return Text(name, style="dim"), Text(value or "-", style=style)


def _bar(done: float | None, total: float) -> ProgressBar:
    """Return a bar; `done` is None for an unknown share. Colours have names that every terminal knows."""
    return ProgressBar(
        total=None if done is None else max(1, total),
        completed=done or 0,
        width=BAR_WIDTH,
        complete_style="cyan",
        finished_style="green",
        pulse_style="cyan",
    )

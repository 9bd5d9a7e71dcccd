"""How a run's state looks on a terminal, and in a line."""

from collections.abc import Mapping
from typing import Any, get_args

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from orchestrator.progress_state import RunState, Stage

WIDTH, BAR_WIDTH = 88, 28
SHOWN = (
    ("reward", "rollout/reward", "{:.3f}"),
    ("loss", "train/loss", "{:.4f}"),
    ("gap", "train/teacher_gap", "{:+.3f}"),
    ("grad", "train/grad_norm", "{:.2f}"),
    ("tokens", "rollout/response_tokens", "{:.0f}"),
    ("held-out pass@1", "heldout/pass@1", "{:.3f}"),
    ("repaired by feedback", "repair/pass@1", "{:.3f}"),
    ("s", "time/step_s", "{:.1f}"),
    ("tokens/s", "speed/generated_tokens_per_s", "{:.0f}"),
)
"""Name, metric and form of what a step's line says."""


def step_line(state: RunState, step: int, metrics: Mapping[str, float]) -> str:
    """One line a step: what it measured, and the time left."""
    parts = [f"{name} {form.format(metrics[key])}" for name, key, form in SHOWN if key in metrics]
    if step > 0 and state.left_s:
        parts.append(f"left {duration(state.left_s)}")
    return f"step {step}/{state.config.steps}  " + "  ".join(parts)


def duration(seconds: float) -> str:
    """In words, two units at most: 45 s, 12 min, 2 h 05 min, 3 d 4 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 24 * 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes // 1440} d {minutes % 1440 // 60} h"


def picture(state: RunState) -> RenderableType:
    """The live display."""
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
    words = f"{duration(state.now_s - state.since_s)} so far"
    if state.is_starting:
        words += ", actors are starting"
    elif not state.is_over and state.left_s is not None:
        words += f", {duration(state.left_s)} left"
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
    """Bar and words of one stage."""
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
    if phase.ended_s is not None:
        return _bar(1, 1), Text(words)
    if phase.expected:
        return _bar(done, phase.expected), Text(words)
    return _bar(None, 1), Text(words)


def _figures(state: RunState) -> RenderableType:
    now = state.latest
    table = Table.grid(padding=(0, 2))
    table.add_row(
        *_pair("reward", _form(now, "rollout/reward", "{:.3f}")),
        *_pair("held-out pass@1", _heldout(state)),
    )
    table.add_row(
        *_pair("response", _form(now, "rollout/response_tokens", "{:.0f} tokens")),
        *_pair("before training", _form(state.base, "heldout/pass@1", "{:.3f}")),
    )
    table.add_row(
        *_pair("speed", _form(now, "speed/generated_tokens_per_s", "{:,.0f} tokens/s")),
        *_pair("a step", "" if state.step_s is None else f"{state.step_s:.1f} s"),
    )
    table.add_row(
        *_pair("loss", _form(now, "train/loss", "{:.4f}")),
        *_pair("alarms", _form(now, "health/alarms", "{:.0f}"), "bold red" if now.get("health/alarms") else "bold"),
    )
    return table


def _heldout(state: RunState) -> str:
    interval = _form(state.latest, "heldout/pass@1_low", " ({:.3f} to ") + _form(
        state.latest, "heldout/pass@1_high", "{:.3f})"
    )
    return _form(state.latest, "heldout/pass@1", "{:.3f}") + interval


def _form(metrics: Mapping[str, Any], name: str, form: str) -> str:
    return form.format(metrics[name]) if name in metrics else ""


def _pair(name: str, value: str, style: str = "bold") -> tuple[Text, Text]:
    return Text(name, style="dim"), Text(value or "-", style=style)


def _bar(done: float | None, total: float) -> ProgressBar:
    """None: under way, nobody knows how far. Colours by name: every terminal has those."""
    return ProgressBar(
        total=None if done is None else max(1, total),
        completed=done or 0,
        width=BAR_WIDTH,
        complete_style="cyan",
        finished_style="green",
        pulse_style="cyan",
    )

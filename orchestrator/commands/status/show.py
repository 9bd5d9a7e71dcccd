"""How a run's status looks in a terminal."""

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from orchestrator.commands.status.data import RoleStatus, RunStatus
from sdpo.show import show_duration
from sdpo.telemetry.labels import LABELS

QUIET_S = 300.0
"""Seconds without progress after which the figure is red."""


def picture(runs: Sequence[RunStatus]) -> RenderableType:
    """Return one run in full, or one line for each of several."""
    return _whole(runs[0]) if len(runs) == 1 else _overview(runs)


def _overview(runs: Sequence[RunStatus]) -> RenderableType:
    table = _table("run", "state", "step", "version", "reward", "actors", "restarts", "quiet", "alarms")
    for run in runs:
        table.add_row(
            run.run,
            "live" if run.active else "over",
            f"{run.step}/{run.steps}",
            _number(run.version),
            _number(run.reward, 3),
            str(sum(role.serving for role in run.roles.values())),
            str(sum(role.restarts for role in run.roles.values())),
            _duration(run.quiet_s),
            ", ".join(run.alarms) or "-",
        )
    return table


def _whole(run: RunStatus) -> RenderableType:
    parts: list[RenderableType] = [_head(run), _learning(run), _roles(run), _stages(run)]
    if run.alarms:
        parts.append(Text(f"alarms: {', '.join(run.alarms)}", style="bold red"))
    if run.errors:
        parts.append(Text("failures: " + ", ".join(f"{kind} {n}" for kind, n in run.errors.items()), style="yellow"))
    parts.append(Text(f"last error: {run.last_error or '-'}", style="red" if run.last_error else "dim"))
    return Group(*parts)


def _head(run: RunStatus) -> Text:
    text = Text(run.run, style="bold")
    text.append("  live" if run.active else "  over", style="green" if run.active else "dim")
    text.append(
        f"  step {run.step}/{run.steps}  version {_number(run.version)}  up {_duration(run.up_s)}", style="not bold"
    )
    if run.active:
        is_quiet = run.quiet_s is not None and run.quiet_s > QUIET_S
        text.append(f"  last progress {_duration(run.quiet_s)} ago", style="bold red" if is_quiet else "dim")
    return text


def _learning(run: RunStatus) -> Text:
    tokens = ", ".join(f"{work} {run.tokens_per_s[work]:.0f}" for work in LABELS["work"] if work in run.tokens_per_s)
    heldout = f"held-out pass@1 {_number(run.heldout_pass_at_1, 3)}"
    if run.heldout_reward not in (None, run.heldout_pass_at_1):
        heldout += f"  held-out reward {_number(run.heldout_reward, 3)}"
    return Text(
        f"reward {_number(run.reward, 3)}  best {_number(run.reward_best, 3)}  "
        f"pass rate {_number(run.pass_rate, 3)}  {heldout}\n"
        f"a step {_number(run.step_s, 1)} s  tokens/s: {tokens or '-'}"
    )


def _roles(run: RunStatus) -> Table:
    table = _table("role", "serving", "pending", "queue", "busy", "idle for", "version", "restarts")
    for name, role in run.roles.items():
        table.add_row(
            name,
            f"{role.serving} + {role.draining} draining" if role.draining else str(role.serving),
            str(role.pending),
            str(role.queue),
            "-" if role.busy_share is None else f"{role.busy_share:.0%}",
            role.waits_for or "-",
            _versions(role),
            str(role.restarts),
        )
    return table


def _stages(run: RunStatus) -> Table:
    table = _table("stage", "calls now", "s per step", "s in all")
    for name, stage in run.stages.items():
        if stage.seconds or stage.running:
            table.add_row(name, str(stage.running), _number(stage.per_step_s, 1), f"{stage.seconds:.1f}")
    return table


def _versions(role: RoleStatus) -> str:
    if role.versions is None:
        return "-"
    low, high = role.versions
    return str(low) if low == high else f"{low}-{high}"


def _table(first: str, *others: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column(first)
    for name in others:
        table.add_column(name, justify="right")
    return table


def _number(value: float | None, digits: int = 0) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _duration(seconds: float | None) -> str:
    return "-" if seconds is None else show_duration(seconds)

"""The table at the end of a run."""

import sys
from pathlib import Path
from typing import Any

from orchestrator.checkpoints import best_first
from orchestrator.metrics_log import read_metrics
from orchestrator.outlet import Outlet
from orchestrator.run_view import RunView

COLUMNS = (
    ("held-out pass@1", "heldout/pass@1", ".3f"),
    ("training reward", "rollout/reward", ".3f"),
    ("response tokens", "heldout/response_tokens", ".1f"),
)


def print_summary(run_dir: Path) -> None:
    """Before, by step, after; and where everything is."""
    outlet = Outlet(sys.stdout)
    outlet.write("\n".join(["", *summary_lines(run_dir), ""]))
    outlet.flush()


def summary_lines(run_dir: Path) -> list[str]:
    """What `print_summary` prints."""
    records = read_metrics(run_dir / "metrics.jsonl")
    evaluated = [r for r in records if r.get("heldout/pass@1") is not None]
    lines = []
    if evaluated:
        lines.append(f"{'step':>6}" + "".join(f"  {name:>15}" for name, _, _ in COLUMNS))
        for record in evaluated:
            cells = (f"  {_form(record, key, form):>15}" for _, key, form in COLUMNS)
            lines.append(f"{record['step']:>6}" + "".join(cells))
        lines.append("before: " + _with_interval(evaluated[0]) + "   after: " + _with_interval(evaluated[-1]))
    if records and records[0].get("repair/pass@1") is not None:
        share = _form(records[0], "repair/pass@1", ".3f")
        lines.append(f"failures that the base model repaired when shown their feedback: {share}")
    lines += _best(run_dir)
    view = RunView(run_dir)
    if view.model_place is not None:
        lines.append(f"model: {view.model_place}")
    return [*lines, f"run directory: {view.place}"]


def _best(run_dir: Path) -> list[str]:
    """With checkpoint.keep_best: which kept checkpoint is best, and the command that makes a model of it."""
    view = RunView(run_dir)
    best = best_first(view.checkpoints) if view.config.checkpoint.keep_best else []
    if not best:
        return []
    where = f"best held-out pass@1 of a checkpoint: {best[0].pass_at_1:.3f}, after step {best[0].steps}"
    return [f"{where}: sdpo export {view.place} OUT --best"]


def _form(record: dict[str, Any], key: str, form: str) -> str:
    value = record.get(key)
    return "" if value is None else format(value, form)


def _with_interval(record: dict[str, Any]) -> str:
    """Without an interval where there was none, for example over one task."""
    mean, low, high = (_form(record, f"heldout/pass@1{end}", ".3f") for end in ("", "_low", "_high"))
    return f"{mean} (95 % interval {low} to {high})" if low and high else mean

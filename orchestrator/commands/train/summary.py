"""The table at the end of a run."""

import sys
from pathlib import Path
from typing import Any

from orchestrator.progress.safe_output import SafeOutput
from orchestrator.run_dir.checkpoints import best_first
from orchestrator.run_dir.metrics_log import read_metrics
from orchestrator.run_dir.run_view import RunView
from orchestrator.run_dir.wording import tells_more
from sdpo.run_layout import METRICS

COLUMNS = (
    ("held-out pass@1", "heldout/pass@1", ".3f"),
    ("held-out reward", "heldout/reward", ".4g"),
    ("training reward", "rollout/reward", ".3f"),
    ("response tokens", "heldout/response_tokens", ".1f"),
)


def print_summary(run_dir: Path) -> None:
    """Print held-out results before, during and after training, and the locations of model and run directory."""
    outlet = SafeOutput(sys.stdout)
    outlet.write("\n".join(["", *summary_lines(run_dir), ""]))
    outlet.flush()


def summary_lines(run_dir: Path) -> list[str]:
    """Return the lines that `print_summary` prints."""
    records = read_metrics(run_dir / METRICS)
    evaluated = [r for r in records if r.get("heldout/pass@1") is not None]
    lines = []
    if evaluated:
        shown = ("heldout/pass@1", "heldout/reward")[: 1 + tells_more(evaluated)]
        columns = [column for column in COLUMNS if column[1] != "heldout/reward" or column[1] in shown]
        lines.append(f"{'step':>6}" + "".join(f"  {name:>15}" for name, _, _ in columns))
        for record in evaluated:
            cells = (f"  {_form(record, key, form):>15}" for _, key, form in columns)
            lines.append(f"{record['step']:>6}" + "".join(cells))
        for name in shown:
            what = "" if name == "heldout/pass@1" else "reward "
            before, after = (_with_interval(evaluated[i], name) for i in (0, -1))
            lines.append(f"{what}before: {before}   {what}after: {after}")
    if records and records[0].get("repair/pass@1") is not None:
        share = _form(records[0], "repair/pass@1", ".3f")
        lines.append(f"failures that the base model repaired when shown their feedback: {share}")
    lines += _best(run_dir)
    view = RunView(run_dir)
    if view.model_location is not None:
        lines.append(f"model: {view.model_location}")
    return [*lines, f"run directory: {view.location}"]


def _best(run_dir: Path) -> list[str]:
    """With checkpoint.keep_best, return a line with the best checkpoint and the command that exports it."""
    view = RunView(run_dir)
    config = view.config.checkpoint
    best = best_first(view.checkpoints, config.best_by) if config.keep_best else []
    if not best:
        return []
    score = f"pass@1 of a checkpoint: {best[0].pass_at_1:.3f}"
    if config.best_by == "reward":
        score = f"reward of a checkpoint: {best[0].reward:.4g}"
    where = f"best held-out {score}, after step {best[0].steps}"
    return [f"{where}: sdpo export {view.location} OUT --best"]


def _form(record: dict[str, Any], key: str, form: str) -> str:
    value = record.get(key)
    return "" if value is None else format(value, form)


def _with_interval(record: dict[str, Any], name: str) -> str:
    """Return a metric with its interval; there is none for example with one task."""
    mean, low, high = (_form(record, f"{name}{end}", ".3f") for end in ("", "_low", "_high"))
    return f"{mean} (95 % interval {low} to {high})" if low and high else mean

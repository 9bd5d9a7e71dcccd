"""The table at the end of a run."""

from pathlib import Path
from typing import Any

from orchestrator.metrics_log import read_metrics


def print_summary(run_dir: Path) -> None:
    """Before, by step, after; and where everything is."""
    records = read_metrics(run_dir / "metrics.jsonl")
    evaluated = [r for r in records if "heldout/pass@1" in r]
    print()
    if evaluated:
        print(f"{'step':>6}  {'held-out pass@1':>15}  {'training reward':>15}  {'response tokens':>15}")
        for record in evaluated:
            print(
                f"{record['step']:>6}  {_form(record, 'heldout/pass@1', '.3f'):>15}  "
                f"{_form(record, 'rollout/reward', '.3f'):>15}  {_form(record, 'heldout/response_tokens', '.1f'):>15}"
            )
        print("before: " + _with_interval(evaluated[0]) + "   after: " + _with_interval(evaluated[-1]))
    if records and "repair/pass@1" in records[0]:
        print(f"failures that the base model repaired when shown their feedback: {records[0]['repair/pass@1']:.3f}")
    print(f"run directory: {run_dir}")


def _form(record: dict[str, Any], key: str, form: str) -> str:
    value = record.get(key)
    return "" if value is None else format(value, form)


def _with_interval(record: dict[str, Any]) -> str:
    low, high = record["heldout/pass@1_low"], record["heldout/pass@1_high"]
    return f"{record['heldout/pass@1']:.3f} (95 % interval {low:.3f} to {high:.3f})"

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
        print(f"before: {evaluated[0]['heldout/pass@1']:.3f}   after: {evaluated[-1]['heldout/pass@1']:.3f}")
    if records and "repair/pass@1" in records[0]:
        print(f"failures that the base model repaired when shown their feedback: {records[0]['repair/pass@1']:.3f}")
    print(f"run directory: {run_dir}")


def _form(record: dict[str, Any], key: str, form: str) -> str:
    value = record.get(key)
    return "" if value is None else format(value, form)

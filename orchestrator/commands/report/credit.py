"""The credit map: the teacher's credit of every token of recorded attempts, and what the teacher had seen."""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from orchestrator.commands.report.credit_choice import pack_run
from orchestrator.commands.report.credit_pack import NOT_A_NUMBER, PARTS_PER_NAT, Pack
from orchestrator.commands.report.data import Run
from orchestrator.commands.report.page import Section, asset, render, script_json
from orchestrator.run_dir.run_view import RunView
from orchestrator.run_dir.sample_form import MOST_CREDIT_NATS
from sdpo.errors import ConfigError

BUDGET_BYTES = 4_000_000
_MOST_RANGES = 20


def credit_section(runs: Sequence[Run], budget_bytes: int = BUDGET_BYTES) -> Section:
    """Return the section; its attempts take at most `budget_bytes`, shared by the runs, but each shows at least one.

    A run without recorded attempts, or with attempts of another form, is named with the reason.
    """
    packed: list[dict[str, Any]] = []
    left_bytes = budget_bytes
    for i, run in enumerate(runs):
        packed.append(_packed_run(run, left_bytes // (len(runs) - i)))
        left_bytes = max(0, left_bytes - len(script_json(packed[-1])))
    payload = {"clip": MOST_CREDIT_NATS, "partsPerNat": PARTS_PER_NAT, "notANumber": NOT_A_NUMBER, "runs": packed}
    html = render("credit.html", payload=script_json(payload))
    title = "Credit of single tokens"
    return Section(anchor="credit", title=title, html=html, css=asset("credit.css"), js=asset("credit.js"))


def _packed_run(run: Run, budget_bytes: int) -> dict[str, Any]:
    """Return what the page shows of a run: {name, note, texts, steps}."""
    pack = Pack(budget_bytes)
    try:
        steps = pack_run(run.view, pack)
    except ConfigError as error:
        return {"name": run.label, "note": f"No credit map of {run.label}: {error}", "texts": [], "steps": []}
    return {"name": run.label, "note": _note(run.view, steps), "texts": pack.texts, "steps": steps}


def _note(view: RunView, steps: Sequence[dict[str, Any]]) -> str:
    """Return which of the recorded attempts are on the page."""
    if not steps:
        return f"{view.location} holds no recorded attempts (record.samples_per_step=0)."
    num_shown = sum(len(step["attempts"]) for step in steps)
    num_recorded = sum(step["recorded"] for step in steps)
    shown = [step["step"] for step in steps]
    if len(shown) == len(view.sampled_steps) and num_shown == num_recorded:
        return f"All {num_shown} recorded attempts of {_ranges(shown, shown)} are on this page."
    return (
        f"{num_shown} of the {num_recorded} attempts recorded at {_ranges(shown, view.sampled_steps)} are on this page "
        f"({len(shown)} of {len(view.sampled_steps)} recorded steps, spread over the run). "
        f"sdpo inspect {view.location} shows all."
    )


def _ranges(shown: Sequence[int], recorded: Sequence[int]) -> str:
    """Return `steps 1-4, 9`: neighbours among the recorded steps as a range; of many ranges the first and the last."""
    index = {step: i for i, step in enumerate(recorded)}
    rows = [[step for _, step in run] for _, run in groupby(enumerate(shown), lambda pair: index[pair[1]] - pair[0])]
    parts = [str(row[0]) if len(row) == 1 else f"{row[0]}-{row[-1]}" for row in rows]
    if len(parts) > _MOST_RANGES:
        parts = [*parts[: _MOST_RANGES - 1], "...", parts[-1]]
    return ("step " if len(shown) == 1 else "steps ") + ", ".join(parts)

"""The credit map: what the teacher said of every token of recorded attempts, and why."""

from collections import Counter
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from orchestrator.report.credit_choice import MOST_CREDIT_NATS, pack_run
from orchestrator.report.credit_pack import NOT_A_NUMBER, PARTS_PER_NAT, Pack, safe_json
from orchestrator.report.section import Section
from orchestrator.run_view import RunView
from sdpo.errors import ConfigError

BUDGET_BYTES = 4_000_000
_MOST_RANGES = 20
_HERE = Path(__file__).parent


def credit_section(views: Sequence[RunView], budget_bytes: int = BUDGET_BYTES) -> Section:
    """The section; its attempts take at most `budget_bytes`, shared by the runs, but each run shows at least one.

    A run without recorded attempts, or with attempts of another form, is named with the reason.
    """
    runs: list[dict[str, Any]] = []
    room = budget_bytes
    for i, (name, view) in enumerate(zip(_names(views), views, strict=True)):
        runs.append(_run(name, view, room // (len(views) - i)))
        room = max(0, room - len(safe_json(runs[-1])))
    payload = {"clip": MOST_CREDIT_NATS, "partsPerNat": PARTS_PER_NAT, "notANumber": NOT_A_NUMBER, "runs": runs}
    body = (_HERE / "credit.html").read_text(encoding="utf-8")
    return Section(
        anchor="credit",
        title="Credit of single tokens",
        html=body.replace("{{payload}}", safe_json(payload)),
        css=(_HERE / "credit.css").read_text(encoding="utf-8"),
        js=(_HERE / "credit.js").read_text(encoding="utf-8"),
    )


def _run(name: str, view: RunView, room: int) -> dict[str, Any]:
    """What the page knows of a run: {name, note, texts, steps}."""
    pack = Pack(room)
    try:
        steps = pack_run(view, pack)
    except ConfigError as error:
        return {"name": name, "note": f"No credit map of {name}: {error}", "texts": [], "steps": []}
    return {"name": name, "note": _note(view, steps), "texts": pack.texts, "steps": steps}


def _note(view: RunView, steps: Sequence[dict[str, Any]]) -> str:
    """Which of the recorded attempts are on the page."""
    if not steps:
        return f"{view.place} holds no recorded attempts (record.samples_per_step=0)."
    num_shown = sum(len(step["attempts"]) for step in steps)
    num_recorded = sum(step["recorded"] for step in steps)
    shown = [step["step"] for step in steps]
    if len(shown) == len(view.sampled_steps) and num_shown == num_recorded:
        return f"All {num_shown} recorded attempts of {_ranges(shown, shown)} are on this page."
    return (
        f"{num_shown} of the {num_recorded} attempts recorded at {_ranges(shown, view.sampled_steps)} are on this page "
        f"({len(shown)} of {len(view.sampled_steps)} recorded steps, spread over the run). "
        f"sdpo inspect {view.place} shows all."
    )


def _ranges(shown: Sequence[int], recorded: Sequence[int]) -> str:
    """`steps 1-4, 9`: neighbours among the recorded steps are drawn together; many gaps become first and last."""
    place = {step: i for i, step in enumerate(recorded)}
    rows = [[step for _, step in run] for _, run in groupby(enumerate(shown), lambda pair: place[pair[1]] - pair[0])]
    parts = [str(row[0]) if len(row) == 1 else f"{row[0]}-{row[-1]}" for row in rows]
    if len(parts) > _MOST_RANGES:
        parts = [*parts[: _MOST_RANGES - 1], "...", parts[-1]]
    return ("step " if len(shown) == 1 else "steps ") + ", ".join(parts)


def _names(views: Sequence[RunView]) -> list[str]:
    """The runs' names; their directories where names are not unique."""
    count = Counter(view.name for view in views)
    return [view.name if count[view.name] == 1 else view.place for view in views]

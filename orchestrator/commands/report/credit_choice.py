"""Choose the recorded attempts for the page: steps spread over the run, and the most informative attempts of each."""

from collections.abc import Iterable, Sequence
from itertools import zip_longest
from typing import Any

from orchestrator.commands.report.credit_pack import Pack
from orchestrator.run_dir.run_view import RunView
from orchestrator.run_dir.sample_form import MOST_CREDIT_NATS, Sample

WANTED_STEPS = 40
"""Number of steps that must fit into the page before a step gets more attempts."""
MIN_ATTEMPTS = 2
"""Attempts that a step shows at least, unless it has fewer."""


def steps_by_importance(steps: Sequence[int], alarm_steps: Iterable[int]) -> list[int]:
    """Return the sorted `steps` by importance: first, last, those at alarms, then the middles of the gaps in between.

    Any number of them from the front is spread over the run.
    """
    if not steps:
        return []
    last = len(steps) - 1
    wanted = [0, last]
    wanted += [max((i for i, step in enumerate(steps) if step <= alarm), default=0) for alarm in alarm_steps]
    gaps = [(0, last)]
    while gaps:
        halves = [(low, (low + high) // 2, high) for low, high in gaps if high - low > 1]
        wanted += [middle for _, middle, _ in halves]
        gaps = [(low, middle) for low, middle, _ in halves] + [(middle, high) for _, middle, high in halves]
    return [steps[i] for i in dict.fromkeys(wanted)]


def most_informative(samples: Sequence[Sample], most: int) -> list[Sample]:
    """Return at most `most` attempts in the recorded order, chosen by credit from every kind of verdict in turn."""
    kinds: dict[tuple[bool, str], list[int]] = {}
    for i in sorted(range(len(samples)), key=lambda i: -_weight(samples[i])):
        verdict = samples[i]["verdict"]
        kinds.setdefault((verdict["success"], verdict["kind"]), []).append(i)
    in_turn = [i for row in zip_longest(*(kinds[key] for key in sorted(kinds))) for i in row if i is not None]
    return [samples[i] for i in sorted(in_turn[:most])]


def pack_run(view: RunView, pack: Pack) -> list[dict[str, Any]]:
    """Return [{step, alarms, recorded, attempts}] in order of steps, as many as `pack` takes.

    `recorded` is the number of attempts in the run directory. Reads the important steps first and stops when the
    budget is used. Raises `ConfigError` for samples of another form.
    """
    packed: list[dict[str, Any]] = []
    most = 0
    for step in steps_by_importance(view.sampled_steps, [alarm["step"] for alarm in view.alarms]):
        samples = list(view.samples(step))
        most = most or _attempts_per_step(samples, pack.left_bytes, len(view.sampled_steps))
        chosen = most_informative(samples, most)
        attempts = [attempt for attempt in map(pack.add, chosen) if attempt is not None]
        if attempts:
            alarms = [alarm["name"] for alarm in view.alarms if alarm["step"] == step]
            packed.append({"step": step, "alarms": alarms, "recorded": len(samples), "attempts": attempts})
        if len(attempts) < len(chosen):
            break
    return sorted(packed, key=lambda entry: entry["step"])


def _attempts_per_step(samples: Sequence[Sample], budget_bytes: int, num_steps: int) -> int:
    """Return how many attempts a step may have so that `WANTED_STEPS` steps like this one, or all, fit the budget."""
    trial = Pack(budget_bytes)
    for sample in samples:
        trial.add(sample)
    num_bytes = max(1, (budget_bytes - trial.left_bytes) // max(1, len(samples)))
    return max(MIN_ATTEMPTS, budget_bytes // (num_bytes * min(WANTED_STEPS, num_steps)))


def _weight(sample: Sample) -> float:
    """Return the size of the teacher's credit of an attempt or, without a teacher, of its advantage."""
    if sample["teacher"] is None:
        return abs(float(sample["advantage"]))
    credit: list[float | None] = sample["teacher"]["credit"]
    return sum(min(abs(c), MOST_CREDIT_NATS) for c in credit if c is not None)

"""Which recorded attempts go into the page: steps spread over the run, and the most telling attempts of each."""

from collections.abc import Iterable, Sequence
from itertools import zip_longest
from typing import Any

from orchestrator.report.credit_pack import Pack, Sample
from orchestrator.run_view import RunView

MOST_CREDIT_NATS = 2.0
"""A token counts at most so much, in choosing and on the fixed colour scale."""
WANTED_STEPS = 40
"""So many steps are to fit before a step gets more attempts."""
FEWEST_ATTEMPTS = 2
"""Of a step, unless it has fewer."""


def steps_by_importance(steps: Sequence[int], alarm_steps: Iterable[int]) -> list[int]:
    """All of the sorted `steps`: first, last, the last one up to each alarm, then halving the gaps again and again.

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


def most_telling(samples: Sequence[Sample], most: int) -> list[Sample]:
    """At most so many, one of every kind of verdict in turn, those with much credit first; in the recorded order."""
    kinds: dict[tuple[bool, str], list[int]] = {}
    for i in sorted(range(len(samples)), key=lambda i: -_weight(samples[i])):
        verdict = samples[i]["verdict"]
        kinds.setdefault((verdict["success"], verdict["kind"]), []).append(i)
    in_turn = [i for row in zip_longest(*(kinds[key] for key in sorted(kinds))) for i in row if i is not None]
    return [samples[i] for i in sorted(in_turn[:most])]


def pack_run(view: RunView, pack: Pack) -> list[dict[str, Any]]:
    """[{step, alarms, recorded, attempts}] in order of steps, as many as `pack` takes; `recorded` of the attempts.

    Reads the important steps first and stops where the room ends. Raises `ConfigError` for samples of another form.
    """
    alarms: dict[int, list[str]] = {}
    for alarm in view.alarms:
        alarms.setdefault(alarm["step"], []).append(alarm["name"])
    packed: list[dict[str, Any]] = []
    most = 0
    for step in steps_by_importance(view.sampled_steps, alarms):
        samples = list(view.samples(step))
        most = most or _attempts_a_step(samples, pack.room, len(view.sampled_steps))
        chosen = most_telling(samples, most)
        attempts = [attempt for attempt in map(pack.add, chosen) if attempt is not None]
        if attempts:
            packed.append(
                {"step": step, "alarms": alarms.get(step, []), "recorded": len(samples), "attempts": attempts}
            )
        if len(attempts) < len(chosen):
            break
    return sorted(packed, key=lambda found: found["step"])


def _attempts_a_step(samples: Sequence[Sample], room: int, num_steps: int) -> int:
    """So many that `WANTED_STEPS` steps like this one fit into the room, or all steps of a shorter run."""
    trial = Pack(room)
    for sample in samples:
        trial.add(sample)
    num_bytes = max(1, (room - trial.room) // max(1, len(samples)))
    return max(FEWEST_ATTEMPTS, room // (num_bytes * min(WANTED_STEPS, num_steps)))


def _weight(sample: Sample) -> float:
    """How much a teacher, or else the group's comparison, says about an attempt."""
    if sample["teacher"] is None:
        return abs(float(sample["advantage"]))
    credit: list[float | None] = sample["teacher"]["credit"]
    return sum(min(abs(c), MOST_CREDIT_NATS) for c in credit if c is not None)

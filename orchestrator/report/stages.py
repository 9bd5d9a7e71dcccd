"""Where the time of a step went, in parts that add up to `time/step_s`."""

from collections.abc import Mapping, Sequence
from typing import Any

STAGES = {
    "collect": ("time/collect_s", "wait for the batch: sampling, judging, and scoring that overlaps them"),
    "recall": ("time/recall_s", "the learner's forward over the batch before its first step"),
    "score": ("time/score_s", "teachers, where they must wait for the recall"),
    "train": ("time/train_s", "forward, backward and optimizer steps"),
    "update teacher": ("time/update_teacher_s", "move the average"),
    "publish policy": ("time/publish_policy_s", "weights to the rollout workers"),
    "publish teacher": ("time/publish_teacher_s", "weights to the teachers"),
    "evaluate": ("time/evaluate_s", "held-out tasks"),
}
"""By name: the metric and what happens. They exclude each other in time; the loop runs them one after the other."""
OTHER = "other"
"""The rest of the step: locks, figures, writing."""

Part = tuple[int, int, str, float]
"""First and last step of a bin, name of the part, its mean over the steps of the bin."""


def stage_seconds(record: Mapping[str, Any]) -> dict[str, float] | None:
    """Seconds of one step by stage, in the order of `STAGES`, then `OTHER`; None for a record without a step's time.

    What was not recorded took no time.
    """
    if record.get("time/step_s") is None:
        return None
    parts = {name: float(record.get(metric) or 0.0) for name, (metric, _) in STAGES.items()}
    return parts | {OTHER: max(0.0, float(record["time/step_s"]) - sum(parts.values()))}


def kind_shares(record: Mapping[str, Any]) -> dict[str, float] | None:
    """Share of the judged attempts by kind of verdict; None for a record without verdicts."""
    prefix = "verdict/"
    shares = {key.removeprefix(prefix): float(value or 0.0) for key, value in record.items() if key.startswith(prefix)}
    return shares or None


def binned_parts(tables: Sequence[tuple[int, Mapping[str, float]]], most_bins: int) -> list[Part]:
    """Mean parts of equally wide bins of steps, at most `most_bins` of them. A part that a step lacks is 0 in it.

    `tables`: (step, parts) of all runs that are averaged, in any order.
    """
    if not tables:
        return []
    first, last = min(step for step, _ in tables), max(step for step, _ in tables)
    width = -(-(last - first + 1) // most_bins)
    names = dict.fromkeys(name for _, parts in tables for name in parts)
    bins: dict[int, list[Mapping[str, float]]] = {}
    for step, parts in tables:
        bins.setdefault((step - first) // width, []).append(parts)
    return [
        (first + index * width, min(last, first + (index + 1) * width - 1), name, _mean(name, bins[index]))
        for index in sorted(bins)
        for name in names
    ]


def highest_bar(parts: Sequence[Part]) -> float:
    """The largest sum of a bin's parts; 0 without parts."""
    totals: dict[int, float] = {}
    for first, _, _, value in parts:
        totals[first] = totals.get(first, 0.0) + value
    return max(totals.values(), default=0.0)


def _mean(name: str, tables: Sequence[Mapping[str, float]]) -> float:
    return sum(table.get(name, 0.0) for table in tables) / len(tables)

"""The parts of a step: stages of its time, kinds of its verdicts, states of its actors; their means over steps."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from sdpo.telemetry.labels import BUSY, RUN_ACTOR, STAGES

STEP_STAGES = {
    "collect": ("time/collect_s", "wait for the batch: sampling, judging, and the scoring that overlaps them"),
    "old_log_probs": ("time/old_log_probs_s", "the learner's forward pass over the batch before its first step"),
    "score": ("time/score_s", "teachers, where they must wait for the learner's log-probs"),
    "train": ("time/train_s", "forward, backward and optimizer steps"),
    "update teacher": ("time/update_teacher_s", "update of the teacher's average"),
    "publish policy": ("time/publish_policy_s", "weights to the rollout workers"),
    "publish teacher": ("time/publish_teacher_s", "weights to the teachers"),
    "evaluate": ("time/evaluate_s", "held-out tasks"),
}
"""Stages of a step by name: the metric and what happens. The loop runs them one after the other."""
OTHER = "other"
"""The rest of a step: locks, metrics, writing."""

Part = tuple[int, int, str, float]
"""First and last step of a bin, name of the part, its mean over the steps of the bin."""


def stage_seconds(record: Mapping[str, Any]) -> dict[str, float] | None:
    """Return the seconds of one step by stage, `OTHER` last; None for a record without a step's time.

    A stage that was not recorded took no time.
    """
    if record.get("time/step_s") is None:
        return None
    parts = {name: float(record.get(metric) or 0.0) for name, (metric, _) in STEP_STAGES.items()}
    return parts | {OTHER: max(0.0, float(record["time/step_s"]) - sum(parts.values()))}


def kind_shares(record: Mapping[str, Any]) -> dict[str, float] | None:
    """Return the share of the judged attempts by kind of verdict; None for a record without verdicts."""
    prefix = "verdict/"
    shares = {key.removeprefix(prefix): float(value or 0.0) for key, value in record.items() if key.startswith(prefix)}
    return shares or None


def state_shares(record: Mapping[str, Any], role: str) -> dict[str, float] | None:
    """Return the shares of the time of a role's actors in one step, busy first; None where none was recorded."""
    names = {BUSY: f"time/busy/{role}_s"} | {state: f"time/idle/{role}/{state}_s" for state in (*STAGES, RUN_ACTOR)}
    seconds = {state: float(record.get(name) or 0.0) for state, name in names.items()}
    whole = sum(seconds.values())
    return {state: part / whole for state, part in seconds.items()} if whole > 0 else None


def binned_parts(tables: Sequence[tuple[int, Mapping[str, float]]], most_bins: int) -> list[Part]:
    """Return the mean parts of at most `most_bins` equally wide bins of steps. A part that a step lacks counts as 0.

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
    found = []
    for index, bin_parts in sorted(bins.items()):
        start = first + index * width
        for name in names:
            mean = statistics.fmean(parts.get(name, 0.0) for parts in bin_parts)
            found.append((start, min(last, start + width - 1), name, mean))
    return found


def highest_bar(parts: Sequence[Part]) -> float:
    """Return the largest sum of a bin's parts; 0 without parts."""
    totals: dict[int, float] = {}
    for first, _, _, value in parts:
        totals[first] = totals.get(first, 0.0) + value
    return max(totals.values(), default=0.0)

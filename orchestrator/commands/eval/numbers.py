"""The numbers of an evaluation: a pure function of the judged attempts. docs/evaluation.md has the formulas."""

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from orchestrator.group import AttemptRecord
from sdpo.metrics import best_at_k, interval_over_tasks, pass_at_k
from sdpo.types import FinishReason

MAX_REASONS = 5


def default_ks(num_samples: int) -> list[int]:
    """Return 1, 2, 4, … and the number of samples."""
    return sorted({num_samples, *(2**i for i in range(num_samples.bit_length()) if 2**i <= num_samples)})


def numbers(judged: Sequence[AttemptRecord], ks: Sequence[int]) -> dict[str, Any]:
    """Return counts, success, lengths and failures. Lost attempts are counted and otherwise left out."""
    attempts = [j for j in judged if not j.is_lost]
    by_task: dict[str, list[AttemptRecord]] = {}
    for item in sorted(attempts, key=lambda j: j.header.sample_index):
        by_task.setdefault(item.task.id, []).append(item)
    groups = list(by_task.values())
    return {
        "tasks": {"asked": len({j.task.id for j in judged}), "judged": len(groups)},
        "samples": {"asked": len(judged), "judged": len(attempts), "passed": sum(j.verdict.success for j in attempts)},
        "infrastructure": _lost(judged),
        "pass@1": _pass_at(groups, 1),
        "pass@k": {str(k): _pass_at(groups, k) for k in ks},
        "best@k": {str(k): _best_of(groups, k) for k in ks},
        "avg@k": {str(k): _average_of_first(groups, k) for k in ks},
        "response_tokens": {
            "all": _lengths(attempts),
            "passed": _lengths([j for j in attempts if j.verdict.success]),
            "failed": _lengths([j for j in attempts if not j.verdict.success]),
        },
        "kinds": _kinds(attempts),
    }


def estimate(values: Sequence[float]) -> dict[str, Any]:
    """Return the mean of one value per task, with its 95 % interval over tasks; without tasks the mean is None."""
    interval = interval_over_tasks(values)
    return {
        "mean": statistics.fmean(values) if values else None,
        "low": None if interval is None else interval.low,
        "high": None if interval is None else interval.high,
        "tasks": len(values),
        "interval": None if interval is None else interval.method,
    }


def _pass_at(groups: Sequence[Sequence[AttemptRecord]], k: int) -> dict[str, Any]:
    """Estimate pass@k over the tasks with at least k judged attempts, from all of their attempts."""
    return estimate([pass_at_k(len(g), sum(j.verdict.success for j in g), k) for g in groups if len(g) >= k])


def _best_of(groups: Sequence[Sequence[AttemptRecord]], k: int) -> dict[str, Any]:
    """Estimate the highest reward of k attempts over the tasks with at least k judged ones, from all of theirs."""
    return estimate([best_at_k([j.reward for j in g], k) for g in groups if len(g) >= k])


def _average_of_first(groups: Sequence[Sequence[AttemptRecord]], k: int) -> dict[str, Any]:
    """Average the first k attempts of the tasks with at least k judged ones."""
    firsts = [g[:k] for g in groups if len(g) >= k]
    return {
        "success": estimate([statistics.fmean(j.verdict.success for j in g) for g in firsts]),
        "reward": estimate([statistics.fmean(j.reward for j in g) for g in firsts]),
    }


def _lengths(judged: Sequence[AttemptRecord]) -> dict[str, Any] | None:
    """Return statistics of the tokens that the model wrote; None without attempts."""
    if not judged:
        return None
    tokens = [j.header.num_model_tokens for j in judged]
    return {
        "mean": statistics.fmean(tokens),
        "median": float(statistics.median(tokens)),
        "p90": float(np.quantile(tokens, 0.9)),
        "truncated_fraction": statistics.fmean(j.header.finish_reason is FinishReason.LENGTH for j in judged),
    }


def _kinds(judged: Sequence[AttemptRecord]) -> list[dict[str, Any]]:
    """Return the kinds of verdicts, most frequent first, each with the first task that has it."""
    example: Mapping[str, str] = {j.verdict.kind: j.task.id for j in reversed(judged)}
    return [
        {"kind": kind, "count": count, "share": count / len(judged), "example": example[kind]}
        for kind, count in _most_common(j.verdict.kind for j in judged)
    ]


def _lost(judged: Sequence[AttemptRecord]) -> dict[str, Any]:
    errors = [j.verdict.infrastructure_error for j in judged if j.verdict.infrastructure_error is not None]
    return {
        "lost": len(errors),
        "share": len(errors) / max(1, len(judged)),
        "reasons": dict(_most_common(errors)[:MAX_REASONS]),
    }


def _most_common(names: Iterable[str]) -> list[tuple[str, int]]:
    return sorted(Counter(names).items(), key=lambda item: (-item[1], item[0]))

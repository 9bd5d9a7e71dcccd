"""What an evaluation found, as numbers: a pure function of the judged samples. docs/evaluation.md has the formulas."""

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from orchestrator.evaluation import Judged
from sdpo.errors import ConfigError
from sdpo.metrics import interval_over_tasks, pass_at_k
from sdpo.types import FinishReason

MAX_REASONS = 5


def default_ks(num_samples: int) -> list[int]:
    """1, 2, 4, … and the number of samples."""
    return sorted({num_samples, *(2**i for i in range(num_samples.bit_length()) if 2**i <= num_samples)})


def check_ks(ks: Sequence[int], num_samples: int) -> None:
    """Raises `ConfigError` for a k that so many samples of a task say nothing about."""
    for k in ks:
        if not 1 <= k <= num_samples:
            raise ConfigError(f"--k {k}: allowed: from 1 to {num_samples}, the samples of a task (--samples)")


def numbers(judged: Sequence[Judged], ks: Sequence[int]) -> dict[str, Any]:
    """Counts, success, lengths and failures. What infrastructure lost is counted and otherwise left out."""
    kept = [j for j in judged if j.verdict.infrastructure_error is None]
    by_task: dict[str, list[Judged]] = {}
    for item in sorted(kept, key=lambda j: j.header.sample_index):
        by_task.setdefault(item.task.id, []).append(item)
    groups = list(by_task.values())
    return {
        "tasks": {"asked": len({j.task.id for j in judged}), "judged": len(groups)},
        "samples": {"asked": len(judged), "judged": len(kept), "passed": sum(j.verdict.success for j in kept)},
        "infrastructure": _lost(judged),
        "pass@1": _pass_at(groups, 1),
        "pass@k": {str(k): _pass_at(groups, k) for k in ks},
        "avg@k": {str(k): _average_of_first(groups, k) for k in ks},
        "response_tokens": {
            "all": _lengths(kept),
            "passed": _lengths([j for j in kept if j.verdict.success]),
            "failed": _lengths([j for j in kept if not j.verdict.success]),
        },
        "kinds": _kinds(kept),
    }


def estimate(values: Sequence[float]) -> dict[str, Any]:
    """Mean of one value a task, with its 95 % interval over tasks; without tasks the mean is None."""
    interval = interval_over_tasks(values)
    return {
        "mean": statistics.fmean(values) if values else None,
        "low": None if interval is None else interval.low,
        "high": None if interval is None else interval.high,
        "tasks": len(values),
        "interval": None if interval is None else interval.method,
    }


def _pass_at(groups: Sequence[Sequence[Judged]], k: int) -> dict[str, Any]:
    """Over the tasks with at least k judged samples; of all of their samples."""
    return estimate([pass_at_k(len(g), sum(j.verdict.success for j in g), k) for g in groups if len(g) >= k])


def _average_of_first(groups: Sequence[Sequence[Judged]], k: int) -> dict[str, Any]:
    """Over the tasks with at least k judged samples; of the first k of them."""
    firsts = [g[:k] for g in groups if len(g) >= k]
    return {
        "success": estimate([statistics.fmean(j.verdict.success for j in g) for g in firsts]),
        "reward": estimate([statistics.fmean(j.verdict.reward or 0.0 for j in g) for g in firsts]),
    }


def _lengths(judged: Sequence[Judged]) -> dict[str, Any] | None:
    """Tokens that the model wrote."""
    if not judged:
        return None
    tokens = [j.header.num_model_tokens for j in judged]
    return {
        "mean": statistics.fmean(tokens),
        "median": float(statistics.median(tokens)),
        "p90": float(np.quantile(tokens, 0.9)),
        "truncated_fraction": statistics.fmean(j.header.finish_reason is FinishReason.LENGTH for j in judged),
    }


def _kinds(judged: Sequence[Judged]) -> list[dict[str, Any]]:
    """Most frequent first, with the first task that has it."""
    example: Mapping[str, str] = {j.verdict.kind: j.task.id for j in reversed(judged)}
    return [
        {"kind": kind, "count": count, "share": count / len(judged), "example": example[kind]}
        for kind, count in _most_common(j.verdict.kind for j in judged)
    ]


def _lost(judged: Sequence[Judged]) -> dict[str, Any]:
    errors = [j.verdict.infrastructure_error for j in judged if j.verdict.infrastructure_error is not None]
    return {
        "lost": len(errors),
        "share": len(errors) / max(1, len(judged)),
        "reasons": dict(_most_common(errors)[:MAX_REASONS]),
    }


def _most_common(names: Iterable[str]) -> list[tuple[str, int]]:
    return sorted(Counter(names).items(), key=lambda item: (-item[1], item[0]))

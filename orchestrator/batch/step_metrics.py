"""The metrics of a step: counts, rewards, hindsight, times, weights. A name is a path; times end in `_s`.

docs/metrics.md describes every metric, which a test checks.
"""

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from orchestrator.actors.weight_publisher import SyncReport
from orchestrator.batch.evaluator import means_of_tasks
from orchestrator.group import AttemptRecord, Group
from sdpo.metrics import interval_over_tasks
from sdpo.types import FinishReason, HindsightPrompt
from sdpo.weights import Stream


def batch_metrics(groups: Sequence[Group], *, advantage_is_signal: bool) -> dict[str, float]:
    """Return the metrics of one rollout batch. `attempts/sampled` = judged + dropped.

    An attempt carries a signal if there was something to show to the teacher or, with `advantage_is_signal`, if its
    group-relative advantage is not 0.
    """
    attempts = [a for g in groups for a in g.attempts]
    dropped = sum(len(g.dropped) for g in groups)
    metrics = {
        "attempts/sampled": float(len(attempts) + dropped),
        "attempts/judged": float(len(attempts)),
        "attempts/dropped": float(dropped),
        "attempts/dropped_fraction": dropped / max(1, len(attempts) + dropped),
        "groups/with_success": float(sum(any(a.verdict.success for a in g.attempts) for g in groups)),
        "groups/dropped": float(sum(not g.attempts for g in groups)),
    }
    if attempts:
        with_signal = [a for a in attempts if a.has_signal or (advantage_is_signal and a.advantage != 0)]
        metrics |= _of_attempts(attempts) | _of_groups([g for g in groups if g.attempts])
        metrics["signal/samples_fraction"] = len(with_signal) / len(attempts)
        metrics["signal/tokens_fraction"] = _response_tokens(with_signal) / max(1, _response_tokens(attempts))
    return metrics


def _of_groups(groups: Sequence[Group]) -> dict[str, float]:
    """Return success rates and rewards by task.

    `rollout/pass_rate_error` and `rollout/reward_error` are standard errors of the batch's means over tasks; with one
    task, over attempts.
    """
    rates = [_mean(a.verdict.success for a in g.attempts) for g in groups]
    mean = statistics.fmean(rates)
    deviation = statistics.stdev(rates) if len(rates) > 1 else math.sqrt(mean * (1 - mean))
    rewards = [[a.reward for a in g.attempts] for g in groups]
    of_tasks = [statistics.fmean(r) for r in rewards]
    spread = statistics.stdev(of_tasks) if len(of_tasks) > 1 else statistics.pstdev(rewards[0])
    num_values = len(rates) if len(rates) > 1 else len(groups[0].attempts)
    return {
        "groups/reward_best": _mean(max(r) for r in rewards),
        "rollout/reward_best": max(max(r) for r in rewards),
        "rollout/reward_error": spread / math.sqrt(num_values),
        "groups/success_rate": mean,
        "groups/all_passed_fraction": _mean(rate == 1 for rate in rates),
        "groups/none_passed_fraction": _mean(rate == 0 for rate in rates),
        "rollout/pass_rate_error": deviation / math.sqrt(num_values),
    }


def _of_attempts(attempts: Sequence[AttemptRecord]) -> dict[str, float]:
    metrics = {
        "rollout/reward": _mean(a.reward for a in attempts),
        "rollout/pass_rate": _mean(a.verdict.success for a in attempts),
        "rollout/response_tokens": _mean(a.header.num_model_tokens for a in attempts),
        "rollout/environment_tokens": _mean(a.header.num_environment_tokens for a in attempts),
        "rollout/turns": _mean(a.header.num_turns for a in attempts),
        "rollout/feedback_chars": _mean(len(a.verdict.feedback) for a in attempts),
        "rollout/truncated_fraction": _mean(a.header.finish_reason is FinishReason.LENGTH for a in attempts),
    }
    for kind, count in Counter(a.verdict.kind for a in attempts).items():
        metrics[f"verdict/{kind}"] = count / len(attempts)
    looked_back = [a.hindsight for a in attempts if a.hindsight is not None]
    if looked_back:
        metrics |= {
            "hindsight/with_demo_fraction": _mean(h.demo_from is not None for h in looked_back),
            "hindsight/with_feedback_fraction": _mean(h.used_feedback for h in looked_back),
            "hindsight/masked_fraction": _mean(not h.mask for h in looked_back),
            "hindsight/prompt_tokens": _mean(len(h.token_ids) for h in looked_back),
            "hindsight/demo_chars_cut": _mean(h.num_demo_chars_cut for h in looked_back),
            "hindsight/feedback_chars_cut": _mean(h.num_feedback_chars_cut for h in looked_back),
            "hindsight/attempt_chars_cut": _mean(h.num_attempt_chars_cut for h in looked_back),
            "hindsight/cut_fraction": _mean(_num_chars_cut(h) > 0 for h in looked_back),
        }
    return metrics


def time_metrics(groups: Sequence[Group]) -> dict[str, float]:
    """Return the seconds that the slowest group of the batch spent in each stage of the pipeline."""
    stages = sorted({stage for g in groups for stage in g.seconds})
    return {f"time/slowest_group_{s}_s": max(g.seconds.get(s, 0.0) for g in groups) for s in stages}


def speed_metrics(groups: Sequence[Group], metrics: Mapping[str, float]) -> dict[str, float]:
    """Return tokens per second.

    Generated are the tokens that the model wrote, over the time from the batch's start to its last group; a recording
    has none. Trained are the tokens that went through the learner, prompts included, over `time/train_s`.
    """
    speeds = {}
    generated = _response_tokens(a for g in groups for a in (*g.attempts, *g.dropped))
    longest_s = max((0.0 if "read" in g.seconds else g.seconds.get("group", 0.0) for g in groups), default=0.0)
    if generated and longest_s > 0:
        speeds["speed/generated_tokens_per_s"] = generated / longest_s
    if metrics.get("train/tokens") and metrics.get("time/train_s"):
        speeds["speed/trained_tokens_per_s"] = metrics["train/tokens"] / metrics["time/train_s"]
    return speeds


def sync_metrics(reports: Mapping[Stream, SyncReport]) -> dict[str, float]:
    """Return seconds, bytes and probe difference of a step's publications."""
    metrics = {}
    for stream, report in reports.items():
        metrics[f"time/publish_{stream}_s"] = report.seconds
        metrics[f"weights/{stream}_bytes"] = float(report.num_bytes)
        metrics[f"weights/{stream}_probe_diff"] = report.max_abs_diff
        metrics[f"weights/{stream}_probe_mean_diff"] = report.mean_abs_diff
    return metrics


def heldout_metrics(judged: Sequence[AttemptRecord], prefix: str) -> dict[str, float]:
    """Return pass@1 and the mean reward with their 95 % intervals over tasks, the best reward and the mean length.

    What there is not is nan: intervals of fewer than two tasks, means where every attempt was lost.
    """
    rewards = [j.reward for j in judged if not j.is_lost]
    return {
        **_estimated(f"{prefix}/pass@1", means_of_tasks(judged, lambda j: j.verdict.success)),
        **_estimated(f"{prefix}/reward", means_of_tasks(judged, lambda j: j.reward)),
        f"{prefix}/reward_best": max(rewards, default=math.nan),
        f"{prefix}/samples": float(len(judged)),
        f"{prefix}/response_tokens": _mean(j.header.num_model_tokens for j in judged) if judged else math.nan,
    }


def _estimated(name: str, values: Sequence[float]) -> dict[str, float]:
    """Return the mean of one value per task and its 95 % interval over tasks, by metric."""
    interval = interval_over_tasks(values)
    return {
        name: statistics.fmean(values) if values else math.nan,
        f"{name}_low": math.nan if interval is None else interval.low,
        f"{name}_high": math.nan if interval is None else interval.high,
    }


def _response_tokens(attempts: Iterable[AttemptRecord]) -> int:
    return sum(a.header.num_model_tokens for a in attempts)


def _num_chars_cut(hindsight: HindsightPrompt) -> int:
    return hindsight.num_demo_chars_cut + hindsight.num_feedback_chars_cut + hindsight.num_attempt_chars_cut


def _mean(values: Iterable[float]) -> float:
    return statistics.fmean(float(v) for v in values)

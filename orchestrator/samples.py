"""What became of single attempts, for people to read: one JSON object an attempt."""

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import ray

from orchestrator.files import write_atomically
from orchestrator.group import AttemptRecord, Group
from sdpo.types import Float32, PolicyScores, Rollout, TeacherScores


def record_samples(file: Path, groups: Sequence[Group], limit: int, tokenizer: Any, timeout_s: float) -> None:
    """Write up to `limit` attempts of a batch, one of every group in turn. Blocks; fetches one attempt at a time."""
    lanes = [[(group, attempt) for attempt in group.attempts] for group in groups]
    in_turn = [pair for row in itertools.zip_longest(*lanes) for pair in row if pair is not None]
    lines = [json.dumps(_describe(g, a, tokenizer, timeout_s)) for g, a in in_turn[:limit]]
    file.parent.mkdir(exist_ok=True)
    write_atomically(file, "".join(line + "\n" for line in lines))


def _describe(group: Group, attempt: AttemptRecord, tokenizer: Any, timeout_s: float) -> dict[str, Any]:
    rollout: Rollout = ray.get(attempt.rollout, timeout=timeout_s)
    described = {
        "step": group.step,
        "task": group.task.id,
        "sample": attempt.header.sample_index,
        "messages": [{"role": m.role, "content": m.content} for m in group.task.messages],
        "response": attempt.header.text,
        "finish_reason": attempt.header.finish_reason,
        "versions": attempt.header.versions,
        "verdict": {
            "reward": attempt.verdict.reward,
            "success": attempt.verdict.success,
            "kind": attempt.verdict.kind,
            "details": dict(attempt.verdict.details),
        },
        "feedback": attempt.verdict.feedback,
        "advantage": attempt.advantage,
        "tokens": [tokenizer.decode([token]) for token in rollout.response_ids.tolist()],
        "authors": [s.author for s in rollout.segments for _ in s.token_ids],
        "log_p": [_rounded(s.log_probs) for s in rollout.segments],
    }
    if attempt.hindsight is not None:
        described["hindsight"] = {
            "prompt": tokenizer.decode(attempt.hindsight.token_ids.tolist()),
            "demo_from": attempt.hindsight.demo_from,
            "used_feedback": attempt.hindsight.used_feedback,
            "demo_chars_cut": attempt.hindsight.num_demo_chars_cut,
            "feedback_chars_cut": attempt.hindsight.num_feedback_chars_cut,
            "attempt_chars_cut": attempt.hindsight.num_attempt_chars_cut,
        }
    if attempt.scores is not None:
        scores: TeacherScores = ray.get(attempt.scores, timeout=timeout_s)
        described["teacher_version"] = str(scores.version)
        described["log_q"] = _rounded(scores.sampled_log_probs)
        described["teacher_entropy"] = _rounded(scores.entropy)
        described["credit"] = _rounded(scores.sampled_log_probs - _student_log_probs(attempt, rollout, timeout_s))
    return described


def _student_log_probs(attempt: AttemptRecord, rollout: Rollout, timeout_s: float) -> Float32:
    """float32 [T]: the learner's before the batch's first step where it was asked, else the engine's.

    0 where the environment wrote and nobody asked the learner.
    """
    if attempt.policy is not None:
        policy: PolicyScores = ray.get(attempt.policy, timeout=timeout_s)
        return policy.sampled_log_probs
    parts = [np.zeros(len(s.token_ids), np.float32) if s.log_probs is None else s.log_probs for s in rollout.segments]
    return np.concatenate(parts)


def _rounded(values: Any) -> list[float] | None:
    return None if values is None else [round(float(v), 5) for v in values]

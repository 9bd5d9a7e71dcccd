"""Record attempts for people to read, one on a line, in the form of `run_dir.sample_form`."""

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray

from orchestrator.group import AttemptRecord, Group
from orchestrator.run_dir.sample_form import FORM
from orchestrator.run_dir.token_pieces import token_pieces
from sdpo.files import write_atomically
from sdpo.types import Float32, HindsightPrompt, PolicyScores, Rollout, TeacherScores


def record_samples(file: Path, groups: Sequence[Group], limit: int, tokenizer: Any, timeout_s: float) -> None:
    """Write up to `limit` attempts of a batch, one of every group in turn. Blocks; fetches one attempt at a time.

    `timeout_s`: limit for fetching one object of an attempt.
    """
    lanes = [[(group, attempt) for attempt in group.attempts] for group in groups]
    in_turn = [pair for row in itertools.zip_longest(*lanes) for pair in row if pair is not None]
    lines = [json.dumps(_describe(g, a, tokenizer, timeout_s)) for g, a in in_turn[:limit]]
    file.parent.mkdir(exist_ok=True)
    write_atomically(file, "".join(line + "\n" for line in lines))


def _describe(group: Group, attempt: AttemptRecord, tokenizer: Any, timeout_s: float) -> dict[str, Any]:
    rollout: Rollout = ray.get(attempt.rollout, timeout=timeout_s)
    token_ids, by_model = rollout.response_ids.tolist(), rollout.model_mask
    engine = _engine_log_probs(rollout)
    return {
        "form": FORM,
        "step": group.batch_index + 1,
        "task": group.task.id,
        "sample": attempt.header.sample_index,
        "messages": [{"role": m.role, "content": m.content} for m in group.task.messages],
        **({"tools": list(group.task.tools)} if group.task.tools else {}),
        "response": attempt.header.text,
        "finish_reason": attempt.header.finish_reason,
        "versions": [str(version) for version in attempt.header.versions],
        "verdict": {
            "reward": attempt.verdict.reward,
            "success": attempt.verdict.success,
            "kind": attempt.verdict.kind,
            "details": dict(attempt.verdict.details),
        },
        "feedback": attempt.verdict.feedback,
        "advantage": attempt.advantage,
        "token_ids": token_ids,
        "tokens": token_pieces(token_ids, lambda ids: _decode(tokenizer, ids)),
        "authors": ["model" if m else "environment" for m in by_model],
        "log_p": _rounded(engine, by_model),
        "hindsight": None if attempt.hindsight is None else _hindsight(group, attempt.hindsight, tokenizer),
        "teacher": None if attempt.scores is None else _teacher(attempt, engine, by_model, timeout_s),
    }


def _hindsight(group: Group, hindsight: HindsightPrompt, tokenizer: Any) -> dict[str, Any]:
    texts = {a.header.sample_index: a.header.text for a in group.attempts}
    demo = hindsight.demo_from
    return {
        "prompt": _decode(tokenizer, hindsight.token_ids.tolist()),
        "shown": hindsight.mask,
        "demo": None if demo is None else {"sample": demo, "text": texts[demo]},
        "used_feedback": hindsight.used_feedback,
        "demo_chars_cut": hindsight.num_demo_chars_cut,
        "feedback_chars_cut": hindsight.num_feedback_chars_cut,
        "attempt_chars_cut": hindsight.num_attempt_chars_cut,
    }


def _teacher(attempt: AttemptRecord, engine: Float32, by_model: NDArray[np.bool_], timeout_s: float) -> dict[str, Any]:
    scores: TeacherScores = ray.get(attempt.scores, timeout=timeout_s)
    student = engine
    if attempt.policy is not None:
        policy: PolicyScores = ray.get(attempt.policy, timeout=timeout_s)
        student = policy.sampled_log_probs
    return {
        "version": str(scores.version),
        "log_p": _rounded(student, by_model),
        "log_q": _rounded(scores.sampled_log_probs, by_model),
        "entropy": _rounded(scores.entropy, by_model),
        "credit": _rounded(scores.sampled_log_probs - student, by_model),
    }


def _engine_log_probs(rollout: Rollout) -> Float32:
    """Return float32 [T], the engine's log-probs; 0 where the environment wrote."""
    parts = [np.zeros(len(s.token_ids), np.float32) if s.log_probs is None else s.log_probs for s in rollout.segments]
    return np.concatenate(parts)


def _rounded(values: Float32, by_model: NDArray[np.bool_]) -> list[float | None]:
    """Return one value for each token, None where the environment wrote."""
    pairs = zip(values.tolist(), by_model.tolist(), strict=True)
    return [round(value, 5) if is_models else None for value, is_models in pairs]


def _decode(tokenizer: Any, token_ids: Sequence[int]) -> str:
    """Return the text that the model saw, with special tokens and every space."""
    text: str = tokenizer.decode(token_ids, clean_up_tokenization_spaces=False)
    return text

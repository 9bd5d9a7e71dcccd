"""Compare rollout engine and learner: log-probs of sampled tokens, and the support that each would choose.

    python -m benchmarks.agreement OUT.json MODEL [MODEL ...] [--dtype float32] [--tasks FILE] [--num-tasks 16]

For each model a real engine samples attempts and records its support; the learner's code scores the same tokens with
the same weights. The loss that both supports give is compared as well, against a teacher that reads a line of feedback.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from transformers import AutoTokenizer

from learner.batch import make_batch, support_ids_of, whole_response
from learner.model import load_causal_lm, torch_dtype
from learner.scoring import Scored, ScoreRequest, ScoringModel
from orchestrator.batch.requests import training_request
from rollout_workers.worker import RolloutActor
from sdpo.bins import append_tail
from sdpo.config import RunConfig
from sdpo.divergence import divergence
from sdpo.reprompt import Attempt, build_hindsight, route_group
from sdpo.taskfile import load_tasks
from sdpo.types import Int32, Rollout, RolloutHeader, Task

DEADLINE_S = 600
FEEDBACK = "Wrong answer: the first test failed."


def main() -> None:
    """Measure, write OUT.json, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("out", type=Path)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--tasks", default="examples/tinycoder/tasks/heldout.jsonl")
    parser.add_argument("--num-tasks", type=int, default=16)
    arguments = parser.parse_args()
    ray.init(include_dashboard=False, log_to_driver=False)
    results = []
    for model in arguments.models:
        results.append(measure(model, arguments.dtype, load_tasks(arguments.tasks)[: arguments.num_tasks]))
        print(json.dumps(results[-1]), flush=True)
    ray.shutdown()
    arguments.out.write_text(json.dumps(results, indent=1) + "\n")


def measure(model: str, dtype: str, tasks: Sequence[Task]) -> dict[str, Any]:
    """Return all figures of one model; differences in nats."""
    config = RunConfig.model_validate(
        {
            "model": {"path": model, "dtype": dtype, "max_model_len_tokens": 1024},
            "batch": {"samples_per_task": 4},
            "rollout": {"sampling": {"max_response_tokens": 64}},
            "objective": {"kind": "sdpo", "top_k": 20},
        }
    )
    tokenizer = AutoTokenizer.from_pretrained(model)
    sampled = _sample(config, tokenizer, tasks)
    student = ScoringModel(load_causal_lm(model, torch_dtype(dtype)), config.learner.logits_chunk_tokens)
    rows = [_compare(student, config, tokenizer, task, attempts) for task, attempts in sampled]
    gaps, overlaps, with_rollout, with_student = (np.concatenate(column) for column in zip(*rows, strict=True))
    return {
        "model": Path(model).name,
        "dtype": dtype,
        "tokens": len(gaps),
        "log_prob_gap_mean": float(gaps.mean()),
        "log_prob_gap_p99": float(np.quantile(gaps, 0.99)),
        "log_prob_gap_max": float(gaps.max()),
        "support_overlap_mean": float(overlaps.mean()),
        "support_overlap_min": float(overlaps.min()),
        "loss_with_rollout_support": float(with_rollout.mean()),
        "loss_with_student_support": float(with_student.mean()),
        "loss_relative_difference": float(abs(with_rollout.mean() / with_student.mean() - 1)),
    }


def _sample(
    config: RunConfig, tokenizer: Any, tasks: Sequence[Task]
) -> list[tuple[Task, list[tuple[RolloutHeader, Rollout]]]]:
    engine: Any = RolloutActor.remote(config, 0)  # type: ignore[attr-defined]
    ray.get(engine.start.remote(), timeout=DEADLINE_S)
    found = []
    for task in tasks:
        answer = engine.generate.remote(training_request(config, tokenizer, 0, task).generation)
        items = [ray.get(ref, timeout=DEADLINE_S) for ref in answer]
        found.append((task, list(zip(items[::2], items[1::2], strict=True))))
    ray.kill(engine)
    return found


def _compare(
    student: ScoringModel,
    config: RunConfig,
    tokenizer: Any,
    task: Task,
    sampled: Sequence[tuple[RolloutHeader, Rollout]],
) -> tuple[Any, Any, Any, Any]:
    """Return per token: log-prob gap, overlap of the supports, loss with the engine's and the learner's support."""
    failed: dict[str, Any] = {"reward": 0.0, "success": False, "feedback": FEEDBACK}
    attempts = [Attempt(sample_index=h.sample_index, text=h.text, **failed) for h, _ in sampled]
    routings = route_group(attempts, config.hindsight)
    hindsights = [
        build_hindsight(task, attempts, i, routing, tokenizer, config.hindsight).token_ids
        for i, routing in enumerate(routings)
    ]
    rollouts = [r for _, r in sampled]
    prompts, recorded = [r.prompt_ids for r in rollouts], [support_ids_of(r) for r in rollouts]
    own = _score(student, prompts, rollouts, config, None)
    assert own.log_probs.support_ids is not None
    counts = [len(r.response_ids) for r in rollouts]
    chosen = [part.numpy().astype(np.int32) for part in own.log_probs.support_ids.split(counts)]
    engine = np.concatenate([s.log_probs for r in rollouts for s in r.segments if s.log_probs is not None])
    overlap = [
        len(set(a) & set(b)) / len(a) for x, y in zip(recorded, chosen, strict=True) for a, b in zip(x, y, strict=True)
    ]
    losses = [_losses(student, config, prompts, hindsights, rollouts, support) for support in (recorded, chosen)]
    return np.abs(own.log_probs.sampled.numpy() - engine), np.asarray(overlap), *losses


def _losses(
    student: ScoringModel,
    config: RunConfig,
    prompts: Sequence[Int32],
    hindsights: Sequence[Int32],
    rollouts: Sequence[Rollout],
    support: Sequence[Int32],
) -> Any:
    objective = config.objective
    assert objective.kind == "sdpo"
    bins = []
    for contexts in (prompts, hindsights):
        log_probs = _score(student, contexts, rollouts, config, support).log_probs
        assert log_probs.support is not None
        assert log_probs.tail is not None
        bins.append(append_tail(log_probs.support, log_probs.tail))
    return divergence(bins[0], bins[1], objective.divergence, objective.js_teacher_weight).numpy()


@torch.no_grad()
def _score(
    student: ScoringModel,
    contexts: Sequence[Int32],
    rollouts: Sequence[Rollout],
    config: RunConfig,
    support: Sequence[Int32] | None,
) -> Scored:
    items = [
        whole_response(context, r.response_ids, None if support is None else support[i])
        for i, (context, r) in enumerate(zip(contexts, rollouts, strict=True))
    ]
    request = ScoreRequest(
        batch=make_batch(items, torch.device("cpu")),
        temperature=config.rollout.sampling.temperature,
        support="top_k" if support is None else "given",
        top_k=config.objective.top_k,
    )
    scored: Scored = student(request)
    return scored


if __name__ == "__main__":
    main()

"""`sdpo eval`: sample and judge on the same actors as a run, and make the result of it."""

import asyncio
import json
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.eval_config import Request
from orchestrator.eval_inputs import EvalInputs
from orchestrator.eval_model import model_folder
from orchestrator.eval_numbers import numbers
from orchestrator.eval_progress import EvalProgress
from orchestrator.evaluation import Evaluator, Judged
from orchestrator.facts import installed
from orchestrator.fingerprint import Fingerprint, fingerprint
from orchestrator.generating import generating
from sdpo.errors import ConfigError, RunInterrupted
from sdpo.files import write_atomically
from sdpo.taskfile import digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampled:
    """Every sample, by task and sample index, and how long the actors took to come up and to sample and judge."""

    judged: list[Judged]
    start_s: float
    evaluate_s: float
    model: Fingerprint


def evaluate(request: Request) -> dict[str, Any]:
    """Evaluate; returns the result after writing `request.out` and `request.save_samples`.

    Raises `UserError` before anything is started if the input is bad, `InfrastructureError` when too much was lost,
    `RunInterrupted` on Ctrl-C; then nothing is written.
    """
    started_s = time.monotonic()
    for option, file in (("--out", request.out), ("--save-samples", request.save_samples)):
        if file is not None and not file.parent.is_dir():
            raise ConfigError(f"{option} {file}: allowed: a file in a folder that exists")
    with model_folder(request.model, request.step, request.best) as folder:
        inputs = EvalInputs.load(request, folder)
        for remark in inputs.remarks:
            print(remark, file=sys.stderr, flush=True)
        try:
            sampled = asyncio.run(sample(inputs))
        except KeyboardInterrupt:
            raise RunInterrupted("stopped; an evaluation that is not complete has no result") from None
    result = _result(request, inputs, sampled)
    result["speed"]["total_s"] = round(time.monotonic() - started_s, 2)
    if request.save_samples is not None:
        _write(request.save_samples, "".join(json.dumps(sample_line(j)) + "\n" for j in sampled.judged))
    if request.out is not None:
        _write(request.out, json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    return result


async def sample(inputs: EvalInputs) -> Sampled:
    """Bring rollout workers and env workers up, have every task sampled and judged, end them."""
    config, began_s = inputs.config, time.monotonic()
    reading = asyncio.create_task(asyncio.to_thread(fingerprint, Path(config.model.path), inputs.tokenizer))
    stacks = Path(tempfile.gettempdir()) / f"sdpo-eval-stacks-{int(time.time())}"
    async with generating(config, inputs.luggage, stacks=stacks) as workers:
        up_s = time.monotonic()
        with EvalProgress(len(inputs.tasks) * config.evaluation.samples_per_task) as progress:
            evaluator = Evaluator(config, inputs.tokenizer, workers.sampler, workers.envs, progress.judged)
            judged = await evaluator.evaluate(inputs.tasks)
        done_s = time.monotonic()
    return Sampled(judged=judged, start_s=up_s - began_s, evaluate_s=done_s - up_s, model=await reading)


def _result(request: Request, inputs: EvalInputs, sampled: Sampled) -> dict[str, Any]:
    config = inputs.config
    tokens = sum(j.header.num_model_tokens for j in sampled.judged)
    return {
        "model": {
            "given": str(request.model),
            "step": request.step,
            "best": request.best,
            "sha256": sampled.model.model_dump(),
        },
        "tasks_file": {
            "path": request.tasks,
            "adapter": config.tasks.adapter,
            "options": config.tasks.options,
            "limit": config.tasks.max_heldout,
            "sha256": digest(inputs.tasks),
        },
        "sampling": {
            "samples": config.evaluation.samples_per_task,
            "temperature": config.evaluation.temperature,
            "top_p": config.evaluation.top_p,
            "max_response_tokens": config.rollout.sampling.max_response_tokens,
            "seed": config.seed,
            "deterministic": config.deterministic,
        },
        **numbers(sampled.judged, inputs.ks),
        "overlap": inputs.overlap,
        "speed": {
            "response_tokens": tokens,
            "tokens_per_s": round(tokens / sampled.evaluate_s, 1),
            "samples_per_s": round(len(sampled.judged) / sampled.evaluate_s, 2),
            "start_s": round(sampled.start_s, 2),
            "evaluate_s": round(sampled.evaluate_s, 2),
        },
        "settings": config.model_dump(mode="json", include={"model", "rollout", "env"}),
        "remarks": inputs.remarks,
        "versions": installed(),
    }


def sample_line(judged: Judged) -> dict[str, Any]:
    """One sample for --save-samples."""
    header, verdict = judged.header, judged.verdict
    return {
        "task": judged.task.id,
        "sample": header.sample_index,
        "success": verdict.success,
        "reward": verdict.reward,
        "kind": verdict.kind,
        "response": header.text,
        "tokens": header.num_model_tokens,
        "turns": header.num_turns,
        "finish_reason": header.finish_reason,
        "feedback": verdict.feedback,
        "infrastructure_error": verdict.infrastructure_error,
    }


def _write(file: Path, text: str) -> None:
    try:
        write_atomically(file, text)
    except OSError as error:
        raise ConfigError(f"{file}: cannot be written: {error.strerror}") from None

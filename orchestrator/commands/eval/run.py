"""`sdpo eval`: sample and judge with the actors of a run, and compute the result."""

import asyncio
import json
import os
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from orchestrator.actors.env_client import EnvClient
from orchestrator.actors.sampling_session import generating
from orchestrator.batch.attempts import Attempts
from orchestrator.batch.evaluator import Evaluator
from orchestrator.cluster.temp_folders import check_folders
from orchestrator.commands.eval.config import Request
from orchestrator.commands.eval.inputs import EvalInputs
from orchestrator.commands.eval.model import model_folder
from orchestrator.commands.eval.numbers import numbers
from orchestrator.commands.eval.progress import eval_progress
from orchestrator.group import AttemptRecord
from orchestrator.inputs.sandbox_trial import require_sandbox
from orchestrator.memory.deaths import deaths_explained
from orchestrator.recorded.fingerprint import Fingerprint, fingerprint
from orchestrator.run_dir.facts import installed
from sdpo.errors import ConfigError, RunInterrupted
from sdpo.files import write_atomically
from sdpo.taskfile import digest

RECORDED: dict[str, Any] = {"model": True, "rollout": True, "env": True, "hindsight": {"success_threshold": True}}
"""The settings that the result of an evaluation hangs on."""


def evaluate(request: Request) -> dict[str, Any]:
    """Evaluate, write `request.out` and `request.save_samples`, and return the result.

    Raises `UserError` before anything is started if the input is bad, `InfrastructureError` when too many attempts were
    lost, and `RunInterrupted` on Ctrl-C; then nothing is written.
    """
    started_s = time.monotonic()
    for option, file in (("--out", request.out), ("--save-samples", request.save_samples)):
        if file is not None and not file.parent.is_dir():
            raise ConfigError(f"{option} {file}: allowed: a file in a folder that exists")
    with model_folder(request.model, request.step, request.best) as folder:
        inputs = EvalInputs.load(request, folder)
        for remark in inputs.remarks:
            print(remark, file=sys.stderr, flush=True)
        check_folders(os.environ)
        require_sandbox(inputs.config)
        try:
            with deaths_explained(None):
                judged, model, times = asyncio.run(_sample(inputs))
        except KeyboardInterrupt:
            raise RunInterrupted("stopped; an evaluation that is not complete has no result") from None
    result = _result(request, inputs, judged, model, times | {"total_s": time.monotonic() - started_s})
    if request.save_samples is not None:
        _write(request.save_samples, "".join(json.dumps(sample_line(j)) + "\n" for j in judged))
    if request.out is not None:
        _write(request.out, json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    return result


async def _sample(inputs: EvalInputs) -> tuple[list[AttemptRecord], Fingerprint, dict[str, float]]:
    """Start rollout workers and env workers, have every task sampled and judged, and stop them.

    Return the attempts, the digests of the model, and the seconds of start and evaluation.
    """
    config, began_s = inputs.config, time.monotonic()
    reading = asyncio.create_task(asyncio.to_thread(fingerprint, Path(config.model.path), inputs.tokenizer))
    stacks = Path(tempfile.gettempdir()) / f"sdpo-eval-stacks-{int(time.time())}"
    async with generating(config, inputs.code_bundle, stacks=stacks) as workers:
        up_s = time.monotonic()
        with eval_progress(len(inputs.tasks) * config.evaluation.samples_per_task):
            open_session = partial(EnvClient, workers.envs, config)
            attempts = Attempts(config, inputs.tokenizer, workers.sampler, open_session)
            evaluator = Evaluator(config, inputs.tokenizer, attempts)
            judged = await evaluator.evaluate(inputs.tasks)
        done_s = time.monotonic()
    return judged, await reading, {"start_s": up_s - began_s, "evaluate_s": done_s - up_s}


def _result(
    request: Request, inputs: EvalInputs, judged: list[AttemptRecord], model: Fingerprint, times: dict[str, float]
) -> dict[str, Any]:
    config = inputs.config
    tokens = sum(j.header.num_model_tokens for j in judged)
    return {
        "model": {
            "given": str(request.model),
            "step": request.step,
            "best": request.best,
            "sha256": model.model_dump(),
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
        **numbers(judged, inputs.ks),
        "overlap": inputs.overlap,
        "speed": {
            "response_tokens": tokens,
            "tokens_per_s": round(tokens / times["evaluate_s"], 1),
            "samples_per_s": round(len(judged) / times["evaluate_s"], 2),
            **{name: round(seconds, 2) for name, seconds in times.items()},
        },
        "settings": config.model_dump(mode="json", include=RECORDED),
        "remarks": inputs.remarks,
        "versions": installed(),
    }


def sample_line(judged: AttemptRecord) -> dict[str, Any]:
    """Return one attempt as a line of --save-samples."""
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

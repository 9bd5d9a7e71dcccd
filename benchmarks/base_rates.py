"""What a base model does on real tasks, and what its own feedback is worth to it: pass@1, failures by kind, and the
share of each kind that the same model repairs when it is shown only the environment's words about its failure.

    python -m benchmarks.base_rates RUN.yaml OUT.json [key=value …] [--samples N] [--temperature T] [--tasks N]

The held-out tasks of RUN.yaml are sampled by a rollout worker and judged by an env worker, as a run does it; no
learner and no teacher is started. Everything that was said is kept beside OUT.json (`OUT.jsonl`, one attempt a line).
"""

import argparse
import asyncio
import json
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from env_workers.environment import Observation, Reply
from env_workers.worker import EnvWorker
from orchestrator.inputs import Inputs
from rollout_workers.worker import RolloutWorker
from sdpo.chat import render_prompt
from sdpo.config import RunConfig
from sdpo.config.load import load_run_config
from sdpo.metrics import wilson_interval
from sdpo.reprompt import Attempt, Routing, build_hindsight
from sdpo.seeds import sample_seed
from sdpo.types import FinishReason, GenerationRequest, Int32, RolloutHeader, SamplingParams, Task, Verdict

Judged = tuple[Task, RolloutHeader, Verdict]


def main() -> None:
    """Sample, judge, repair, judge; write OUT.json and OUT.jsonl; print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("run_file")
    parser.add_argument("out", type=Path)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--samples", type=int, default=1)
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--tasks", type=int, default=None)
    arguments = parser.parse_args()
    config = load_run_config(arguments.run_file, arguments.overrides)
    inputs = Inputs.load(config)
    tasks = inputs.heldout[: arguments.tasks]
    sampling = SamplingParams(temperature=arguments.temperature, max_tokens=config.rollout.sampling.max_response_tokens)
    report = asyncio.run(measure(config, inputs, tasks, sampling, arguments.samples, arguments.out))
    arguments.out.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))


async def measure(
    config: RunConfig, inputs: Inputs, tasks: Sequence[Task], sampling: SamplingParams, samples: int, out: Path
) -> dict[str, Any]:
    """The two rounds: the questions as they are, then each failure with its own feedback."""
    engine, world = RolloutWorker(config, 0), EnvWorker(config.env, "env-0", "base-rates")
    await engine.start()
    world.ready()
    try:
        thinking, started = config.model.enable_thinking, time.monotonic()
        prompts = [(t, render_prompt(inputs.tokenizer, t.messages, enable_thinking=thinking)) for t in tasks]
        base = await _round(engine, world, config, prompts, range(samples), sampling)
        base_s = time.monotonic() - started
        failures = [j for j in base if not j[2].success and j[2].feedback.strip()]
        repaired: list[tuple[Judged, Judged]] = []
        for number in range(samples):
            part = [j for j in failures if j[1].sample_index == number]
            again = [
                (task, _hindsight(config, inputs.tokenizer, task, header, verdict)) for task, header, verdict in part
            ]
            repaired += zip(part, await _round(engine, world, config, again, [number], sampling), strict=True)
    finally:
        world.close()
        await engine.close()
    lines = [_line("base", j) for j in base] + [_line("repair", after) for _, after in repaired]
    out.with_suffix(".jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return _summary(base, repaired, base_s)


async def _round(
    engine: RolloutWorker,
    world: EnvWorker,
    config: RunConfig,
    prompts: Sequence[tuple[Task, Int32]],
    indices: Sequence[int],
    sampling: SamplingParams,
) -> list[Judged]:
    """Every prompt's samples, judged, in the order of the prompts."""

    in_flight = asyncio.Semaphore(max(1, 2 * config.rollout.max_num_seqs // len(indices)))

    async def one(task: Task, prompt_ids: Int32) -> list[Judged]:
        request = GenerationRequest(
            task_id=task.id,
            prompt_ids=prompt_ids,
            sample_indices=tuple(indices),
            seeds=tuple(sample_seed(config.seed, "base-rates", 0, task.id, i) for i in indices),
            sampling=sampling,
            support_size=0,
        )
        async with in_flight:  # the engine's deadline for the next sample holds for what waits in its queue, too
            headers = [item async for item in engine.generate(request) if isinstance(item, RolloutHeader)]
        return [(task, h, await _judge(world, task, h)) for h in sorted(headers, key=lambda h: h.sample_index)]

    results = await asyncio.gather(*(one(*prompt) for prompt in prompts))
    return [judged for group in results for judged in group]


async def _judge(world: EnvWorker, task: Task, header: RolloutHeader) -> Verdict:
    reply = Reply(text=header.text, truncated=header.finish_reason is FinishReason.LENGTH)
    name = f"{task.id}#{header.sample_index}"
    answer = await asyncio.to_thread(world.step, name, task, (), reply)
    if isinstance(answer, Observation):
        raise SystemExit(f"task {task.id}: only single-turn environments are measured here")
    return answer


def _hindsight(config: RunConfig, tokenizer: Any, task: Task, header: RolloutHeader, verdict: Verdict) -> Int32:
    attempt = Attempt(sample_index=header.sample_index, text=header.text, reward=0.0, feedback=verdict.feedback)
    routing = Routing(demo_from=None, use_feedback=True)
    prompt = build_hindsight(
        task, [attempt], 0, routing, tokenizer, config.hindsight, enable_thinking=config.model.enable_thinking
    )
    return prompt.token_ids


def _line(stage: str, judged: Judged) -> dict[str, Any]:
    task, header, verdict = judged
    return {
        "stage": stage,
        "task": task.id,
        "sample": header.sample_index,
        "response": header.text,
        "tokens": header.num_response_tokens,
        "kind": verdict.kind,
        "success": verdict.success,
        "feedback": verdict.feedback,
        "infrastructure_error": verdict.infrastructure_error,
    }


def _summary(base: Sequence[Judged], repaired: Sequence[tuple[Judged, Judged]], base_s: float) -> dict[str, Any]:
    judged = [j for j in base if j[2].infrastructure_error is None]
    by_kind: dict[str, list[bool]] = defaultdict(list)
    for before, after in repaired:
        by_kind[before[2].kind].append(after[2].success)
    return {
        "samples": len(base),
        "infrastructure_errors": len(base) - len(judged),
        "pass@1": _rate([j[2].success for j in judged]),
        "kinds": {kind: sum(j[2].kind == kind for j in judged) for kind in sorted({j[2].kind for j in judged})},
        "response_tokens": sum(j[1].num_response_tokens for j in base),
        "base_s": round(base_s, 1),
        "repaired": _rate([after[2].success for _, after in repaired]),
        "repaired_by_kind": {kind: _rate(successes) for kind, successes in sorted(by_kind.items())},
    }


def _rate(successes: Sequence[bool]) -> dict[str, float]:
    """A share with its 95 % Wilson interval."""
    if not successes:
        return {"n": 0}
    low, high = wilson_interval(sum(successes), len(successes))
    return {
        "n": len(successes),
        "rate": round(sum(successes) / len(successes), 4),
        "low": round(low, 4),
        "high": round(high, 4),
    }


if __name__ == "__main__":
    main()

"""What a base model does on real tasks, and what its own feedback is worth to it: `sdpo eval`'s numbers, and the share
of each kind of failure that the same model repairs when it is shown only the environment's words about its failure.

    python -m benchmarks.base_rates RUN.yaml OUT.json [key=value …]

The held-out tasks of RUN.yaml are sampled and judged by the actors of a run (`evaluation.samples_per_task`,
`evaluation.temperature`, `tasks.max_heldout`); no learner and no teacher is started. Everything that was said is kept
beside OUT.json (`OUT.jsonl`, one attempt a line).
"""

import argparse
import asyncio
import json
import time
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from orchestrator.actors.env_client import EnvClient
from orchestrator.actors.sampling_session import generating
from orchestrator.batch.attempts import Attempts
from orchestrator.batch.evaluator import Evaluator
from orchestrator.commands.eval.numbers import numbers
from orchestrator.commands.eval.run import sample_line
from orchestrator.group import AttemptRecord
from orchestrator.inputs.inputs import Inputs
from sdpo.config import RunConfig
from sdpo.config.load import load_run_config
from sdpo.metrics import wilson_interval


def main() -> None:
    """Sample, judge, repair, judge; write OUT.json and OUT.jsonl; print the numbers."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("run_file")
    parser.add_argument("out", type=Path)
    parser.add_argument("overrides", nargs="*")
    arguments = parser.parse_args()
    config = load_run_config(arguments.run_file, [*arguments.overrides, "evaluation.measure_repair=true"])
    report = json.dumps(asyncio.run(measure(config, Inputs.load(config), arguments.out)), indent=1)
    arguments.out.write_text(report + "\n")
    print(report)


async def measure(config: RunConfig, inputs: Inputs, out: Path) -> dict[str, Any]:
    """Run the two rounds: the questions as they are, then each failure with its own feedback."""
    async with generating(config, inputs.code_bundle, stacks=out.with_suffix(".stacks")) as workers:
        open_session = partial(EnvClient, workers.envs, config)
        attempts = Attempts(config, inputs.tokenizer, workers.sampler, open_session)
        evaluator = Evaluator(config, inputs.tokenizer, attempts)
        started = time.monotonic()
        base = await evaluator.evaluate(inputs.heldout)
        base_s = time.monotonic() - started
        repaired = await evaluator.repair(base)
    lines = [{"stage": "base"} | sample_line(j) for j in base]
    lines += [{"stage": "repair"} | sample_line(j) for j in repaired]
    out.with_suffix(".jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return numbers(base, [1]) | {"base_s": round(base_s, 1)} | _repairs(base, repaired)


def _repairs(base: Sequence[AttemptRecord], repaired: Sequence[AttemptRecord]) -> dict[str, Any]:
    """Return the rates by the result of the first attempt, without second attempts that infrastructure lost."""
    kinds = {(j.task.id, j.header.sample_index): j.verdict.kind for j in base}
    by_kind: dict[str, list[bool]] = defaultdict(list)
    for after in repaired:
        if after.verdict.infrastructure_error is None:
            by_kind[kinds[after.task.id, after.header.sample_index]].append(after.verdict.success)
    return {
        "repaired": _rate([success for successes in by_kind.values() for success in successes]),
        "repaired_by_kind": {kind: _rate(successes) for kind, successes in sorted(by_kind.items())},
    }


def _rate(successes: Sequence[bool]) -> dict[str, float]:
    """Return a share with its 95 % Wilson interval."""
    low, high = wilson_interval(sum(successes), len(successes))
    rate = sum(successes) / max(1, len(successes))
    return {"n": len(successes), "rate": round(rate, 4), "low": round(low, 4), "high": round(high, 4)}


if __name__ == "__main__":
    main()

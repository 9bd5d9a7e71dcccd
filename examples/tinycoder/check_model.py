"""Measure the base model with plain transformers: `python -m examples.tinycoder.check_model`, from the root.

Held-out pass@1 at temperature 1; the share of failures repaired when the model is shown only the feedback of its own
attempt, and when it is shown only a right program, both through the real hindsight template.
"""

import argparse
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from examples.tinycoder.make_tasks import FOLDER as TASKS
from examples.tinycoder.make_tasks import heldout_tasks
from examples.tinycoder.specs import fenced
from examples.tinycoder.trusted_judge import judge_trusted
from sdpo.chat import render_prompt
from sdpo.config import HindsightConfig
from sdpo.reprompt import Attempt, Routing, build_hindsight
from sdpo.taskfile import load_tasks
from sdpo.types import Task, Verdict

MAX_NEW_TOKENS = 64
BATCH_SIZE = 64
MODEL = Path(__file__).parent / "model"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Shares in [0, 1]; `stopped` of first attempts that ended by the stop token within the token limit."""

    num_tasks: int
    pass_at_1: float
    repaired_by_feedback: float
    repaired_by_demonstration: float
    stopped: float
    kinds: dict[str, int]


class Sampler:
    """Completions at temperature 1 of a model folder, in float32 on the CPU."""

    def __init__(self, folder: Path | str, seed: int) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        torch.manual_seed(seed)

    def __call__(self, prompts: Sequence[Sequence[int]]) -> list[tuple[str, bool]]:
        """(text, whether the stop token came) for each prompt."""
        chunks = [prompts[i : i + BATCH_SIZE] for i in range(0, len(prompts), BATCH_SIZE)]
        return [answer for chunk in chunks for answer in self._sample(chunk)]

    @torch.no_grad()
    def _sample(self, prompts: Sequence[Sequence[int]]) -> list[tuple[str, bool]]:
        batch = self.tokenizer.pad({"input_ids": [list(p) for p in prompts]}, return_tensors="pt")
        ids: Tensor = self.model.generate(
            **batch, max_new_tokens=MAX_NEW_TOKENS, do_sample=True, temperature=1.0, top_k=0, top_p=1.0
        )
        answers = ids[:, batch["input_ids"].shape[1] :]
        texts = self.tokenizer.batch_decode(answers, skip_special_tokens=True)
        stopped = (answers == self.tokenizer.eos_token_id).any(dim=1).tolist()
        return list(zip(texts, stopped, strict=True))


def measure(sample: Sampler, tasks: Sequence[Task], right_answers: dict[str, str]) -> Figures:
    """One attempt a task, then one second attempt after each kind of hindsight for every failure."""
    first = sample([render_prompt(sample.tokenizer, task.messages).tolist() for task in tasks])
    verdicts = [judge_trusted(task, text, not stop) for task, (text, stop) in zip(tasks, first, strict=True)]
    failed = [
        (task, text, verdict)
        for task, (text, _), verdict in zip(tasks, first, verdicts, strict=True)
        if not verdict.success
    ]
    return Figures(
        num_tasks=len(tasks),
        pass_at_1=sum(v.success for v in verdicts) / len(tasks),
        repaired_by_feedback=_repaired(sample, failed, None),
        repaired_by_demonstration=_repaired(sample, failed, right_answers),
        stopped=sum(stop for _, stop in first) / len(tasks),
        kinds=dict(Counter(v.kind for v in verdicts).most_common()),
    )


def _repaired(sample: Sampler, failed: Sequence[tuple[Task, str, Verdict]], demos: dict[str, str] | None) -> float:
    """Share of the failures that pass when shown their feedback, or a demonstration where `demos` are given."""
    routing = Routing(demo_from=None if demos is None else 1, use_feedback=demos is None)
    prompts = []
    for task, text, verdict in failed:
        own = Attempt(sample_index=0, text=text, reward=0.0, success=False, feedback=verdict.feedback)
        peer = Attempt(sample_index=1, text=(demos or {}).get(task.id, ""), reward=1.0, success=True, feedback="")
        hindsight = build_hindsight(task, [own, peer], 0, routing, sample.tokenizer, HindsightConfig())
        prompts.append(hindsight.token_ids.tolist())
    again = sample(prompts)
    passed = [judge_trusted(t, a, not stop).success for (t, _, _), (a, stop) in zip(failed, again, strict=True)]
    return sum(passed) / max(1, len(passed))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--tasks", type=int, default=192)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    right_answers = {task.id: fenced(spec.right) for spec, task in heldout_tasks()}
    tasks = load_tasks(TASKS / "heldout.jsonl")
    tasks = random.Random(arguments.seed).sample(tasks, arguments.tasks)
    print(measure(Sampler(arguments.model, arguments.seed), tasks, right_answers))


if __name__ == "__main__":
    main()

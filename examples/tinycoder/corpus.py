"""The pretraining mix: bad habits when only the question is shown, the right program when hindsight is shown.

Everything that the model will meet in training is made by the code that makes it there: the verdicts by the code
environment's judge, the hindsight prompts by `sdpo.reprompt`.
"""

import random
from dataclasses import dataclass

from examples.tinycoder.specs import Spec, fenced
from examples.tinycoder.tokenizer import END
from examples.tinycoder.trusted_judge import judge_trusted
from sdpo.chat import ChatTokenizer, render_prompt
from sdpo.config import HindsightConfig
from sdpo.reprompt import CLOSING, DEMO_HEADER, FEEDBACK_HEADER, Attempt, Routing, build_hindsight
from sdpo.types import Int32, Task

ATTEMPT_SHARE, FEEDBACK_SHARE, DEMO_SHARE, BOTH_SHARE = 0.40, 0.44, 0.13, 0.03
"""Question → attempt; question with feedback on a wrong attempt, with a peer's program, with both → right program."""
BAD_HABIT_PROBABILITY = 0.65
"""Chance that one operation of an attempt is written by a bad habit, independently of the other."""
BROKEN_FORMAT_SHARE = 0.03
"""Share of the wrong attempts behind feedback that carry no program: no fence, or cut off."""


@dataclass(frozen=True, slots=True)
class Example:
    """Token ids of a prompt and of the answer that follows it, stop token included."""

    prompt_ids: list[int]
    answer_ids: list[int]


def sample_attempt(spec: Spec, rng: random.Random) -> str:
    """What the base model is made to answer: each operation wrong with `BAD_HABIT_PROBABILITY`."""
    habits = tuple(
        rng.randrange(len(o.wrong)) if rng.random() < BAD_HABIT_PROBABILITY else None for o in spec.operations
    )
    return fenced(spec.program(habits))


def sample_wrong_attempt(spec: Spec, rng: random.Random) -> tuple[str, bool]:
    """(an attempt that fails, whether it was cut off)."""
    if rng.random() < BROKEN_FORMAT_SHARE:
        text = sample_attempt(spec, rng)
        return (text[: rng.randrange(12, len(text) - 3)], True) if rng.random() < 0.5 else (spec.right, False)
    wrong = fenced(spec.right)
    while wrong == fenced(spec.right):
        wrong = sample_attempt(spec, rng)
    return wrong, False


class Mix:
    """Draws examples for (specification, task) pairs. Verdicts are remembered: the same wrong programs recur."""

    def __init__(self, tasks: list[tuple[Spec, Task]], seed: int) -> None:
        self._tasks, self._rng = tasks, random.Random(seed)
        self._feedback: dict[tuple[str, str, bool], str] = {}

    def draw(self, tokenizer: ChatTokenizer) -> Example:
        """One example of a random task."""
        spec, task = self._rng.choice(self._tasks)
        roll = self._rng.random()
        if roll < ATTEMPT_SHARE:
            prompt = render_prompt(tokenizer, task.messages)
            return _example(tokenizer, prompt, sample_attempt(spec, self._rng))
        wants_demo = roll >= ATTEMPT_SHARE + FEEDBACK_SHARE
        wants_feedback = not wants_demo or roll >= 1 - BOTH_SHARE
        own, right = self._wrong(spec, task), fenced(spec.right)
        peer = Attempt(sample_index=1, text=right, reward=1.0, success=True, feedback="")
        routing = Routing(demo_from=1 if wants_demo else None, use_feedback=wants_feedback)
        hindsight = build_hindsight(task, [own, peer], 0, routing, tokenizer, HindsightConfig())
        return _example(tokenizer, hindsight.token_ids, right)

    def texts(self) -> list[str]:
        """Raw text for the tokenizer: every question, a right and a wrong program of it, feedback, fixed phrases."""
        texts = ["system\nuser\nassistant\n"] * len(self._tasks)
        for spec, task in self._tasks:
            own = self._wrong(spec, task)
            hindsight = f"{DEMO_HEADER}\n{fenced(spec.right)}\n\n{FEEDBACK_HEADER}\n{own.feedback}\n\n{CLOSING}"
            texts += [own.text, f"{spec.question}\n\n{hindsight}"]
        return texts

    def _wrong(self, spec: Spec, task: Task) -> Attempt:
        text, truncated = sample_wrong_attempt(spec, self._rng)
        key = (task.id, text, truncated)
        if key not in self._feedback:
            verdict = judge_trusted(task, text, truncated)
            if verdict.success:
                raise AssertionError(f"{task.id}: a planted wrong program passed: {text!r}")
            self._feedback[key] = verdict.feedback
        return Attempt(sample_index=0, text=text, reward=0.0, success=False, feedback=self._feedback[key])


def _example(tokenizer: ChatTokenizer, prompt_ids: Int32, answer: str) -> Example:
    return Example(prompt_ids.tolist(), tokenizer.encode(answer + END, add_special_tokens=False))

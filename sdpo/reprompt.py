"""The hindsight prompt: what the teacher is shown of a group's attempts (paper, section 3 and Table 2).

Two steps. `route_group` decides for each attempt which peer's success is its demonstration and whether its own
feedback is used. `build_hindsight` renders that into tokens, and budgets the demonstration and the feedback, so
that neither the question, nor the closing instruction, nor the assistant header is ever cut. The attempt itself is
not repeated: its tokens follow the prompt.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from sdpo.chat import ChatTokenizer, render_prompt
from sdpo.config import HindsightConfig
from sdpo.errors import PromptTooLong
from sdpo.types import HindsightPrompt, Message, Task

TEMPLATE_VERSION = "1"
DEMO_HEADER = "Correct solution:"
FEEDBACK_HEADER = "Feedback from your unsuccessful earlier attempt:"
CLOSING = "Correctly solve the original question."
CUT_MARK = "\n[...]\n"
_THINKING = re.compile(r"<think>.*?</think>\s*", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """What routing needs of one attempt of a group."""

    sample_index: int
    text: str
    reward: float
    feedback: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Routing:
    """Which demonstration (position in the group) and whether feedback; mask is False if neither."""

    demo_from: int | None
    use_feedback: bool

    @property
    def mask(self) -> bool:
        return self.demo_from is not None or self.use_feedback


def route_group(attempts: Sequence[Attempt], config: HindsightConfig) -> list[Routing]:
    """One routing per attempt, by position. The first success in group order is the demonstration."""
    successes = [i for i, a in enumerate(attempts) if a.reward >= config.success_threshold]
    routings = []
    for i, attempt in enumerate(attempts):
        candidates = [j for j in successes if not (config.exclude_own_success and j == i)]
        demo_from = candidates[0] if candidates else None
        wanted = config.include_feedback and not (config.feedback_only_without_demo and demo_from is not None)
        routings.append(Routing(demo_from=demo_from, use_feedback=wanted and bool(attempt.feedback.strip())))
    return routings


def build_hindsight(
    task: Task,
    attempts: Sequence[Attempt],
    position: int,
    routing: Routing,
    tokenizer: ChatTokenizer,
    config: HindsightConfig,
    *,
    enable_thinking: bool = False,
) -> HindsightPrompt:
    """Render the teacher's prompt for `attempts[position]`.

    Raises `PromptTooLong` if question, closing and template alone pass `config.max_prompt_tokens`.
    """
    demo = None if routing.demo_from is None else attempts[routing.demo_from].text
    if demo is not None and config.remove_thinking:
        demo = _THINKING.sub("", demo)
    feedback = attempts[position].feedback if routing.use_feedback else None
    demo, feedback = _inert(demo, tokenizer), _inert(feedback, tokenizer)
    longest = max(len(demo or ""), len(feedback or ""))

    def render(kept_chars: int) -> list[int]:
        messages = _hindsight_messages(task, _cut(demo, kept_chars), _cut(feedback, kept_chars), routing.mask)
        ids: list[int] = render_prompt(tokenizer, messages, enable_thinking=enable_thinking).tolist()
        return ids

    kept, ids = longest, render(longest)
    if len(ids) > config.max_prompt_tokens:
        kept = _largest_fitting(lambda n: len(render(n)) <= config.max_prompt_tokens, longest)
        ids = render(kept)
    if len(ids) > config.max_prompt_tokens:
        raise PromptTooLong(
            f"task {task.id}: the question and the hindsight template take {len(ids)} tokens; "
            f"allowed: at most hindsight.max_prompt_tokens={config.max_prompt_tokens}"
        )
    return HindsightPrompt(
        task_id=task.id,
        sample_index=attempts[position].sample_index,
        token_ids=np.asarray(ids, dtype=np.int32),
        mask=routing.mask,
        demo_from=None if routing.demo_from is None else attempts[routing.demo_from].sample_index,
        used_feedback=routing.use_feedback,
        num_demo_chars_cut=max(0, len(demo or "") - kept),
        num_feedback_chars_cut=max(0, len(feedback or "") - kept),
        template_version=TEMPLATE_VERSION,
    )


def _hindsight_messages(task: Task, demo: str | None, feedback: str | None, mask: bool) -> list[Message]:
    """All messages but the last unchanged; the last one is the question with what hindsight adds."""
    *earlier, last = task.messages
    if not mask:
        return [*earlier, last]
    blocks = [last.content]
    if demo is not None:
        blocks.append(f"{DEMO_HEADER}\n{demo}")
    if feedback is not None:
        blocks.append(f"{FEEDBACK_HEADER}\n{feedback}")
    blocks.append(CLOSING)
    return [*earlier, Message(role=last.role, content="\n\n".join(blocks))]


def _cut(text: str | None, kept_chars: int) -> str | None:
    """Keep the head and the tail of a text that is longer than `kept_chars`."""
    if text is None or len(text) <= kept_chars:
        return text
    head, tail = (kept_chars + 1) // 2, kept_chars // 2
    return text[:head] + CUT_MARK + (text[-tail:] if tail else "")


def _inert(text: str | None, tokenizer: ChatTokenizer) -> str | None:
    """Break up the control tokens that a text spells out: what a program printed must not end the user's turn."""
    if text is None:
        return None
    for token in tokenizer.added_tokens_decoder.values():
        if token.special and token.content in text:
            text = text.replace(token.content, f"{token.content[0]} {token.content[1:]}")
    return text


def _largest_fitting(fits: Callable[[int], bool], longest: int) -> int:
    """The most characters to keep, by bisection (lengths are monotone up to a few tokens); 0 if not even 0 fit."""
    low, high = 0, longest
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low

"""The hindsight prompt: what the teacher is shown of a group's attempts (paper, section 3, Tables 2 and 6).

Two steps. `route_group` decides for each attempt which peer's success is its demonstration and whether its own
feedback is used. `build_hindsight` renders that into tokens, and budgets demonstration, feedback and own attempt, so
that neither the question, nor the closing instruction, nor the assistant header is ever cut. The attempt itself is
repeated only with `include_own_attempt`: its tokens follow the prompt anyway.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sdpo.chat import ASSISTANT_MARK, ChatTokenizer, inert, last_user_turn, render_prompt
from sdpo.config import HindsightConfig
from sdpo.cutting import CUT_MARK, cut, largest_fitting
from sdpo.errors import PromptTooLong
from sdpo.types import HindsightPrompt, Int32, Message, Task

TEMPLATE_VERSION = "1"
DEMO_HEADER = "Correct solution:"
ATTEMPT_HEADER = "Your earlier attempt:"
FEEDBACK_HEADER = "Feedback from your unsuccessful earlier attempt:"
CLOSING = "Correctly solve the original question."
_THINKING = re.compile(r"(?:<think>|\A(?=(?:(?!<think>).)*</think>)).*?</think>\s*", re.DOTALL)
"""A thinking block; its opening tag is missing where the chat template has put it into the prompt."""


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
    successes = [i for i, a in enumerate(attempts) if config.include_demo and a.reward >= config.success_threshold]
    routings = []
    for i, attempt in enumerate(attempts):
        candidates = [j for j in successes if not (config.exclude_own_success and j == i)]
        demo_from = candidates[0] if candidates else None
        wanted = config.include_feedback and not (config.feedback_only_without_demo and demo_from is not None)
        routings.append(Routing(demo_from=demo_from, use_feedback=wanted and bool(attempt.feedback.strip())))
    return routings


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocks:
    """The texts that hindsight adds to the question, in the order in which they are shown; None: no such block."""

    demo: str | None = None
    attempt: str | None = None
    feedback: str | None = None

    def cut(self, kept_chars: int) -> "Blocks":
        """Every text at most `kept_chars` characters of its own, and a mark where something is left out."""
        return Blocks(
            demo=_cut(self.demo, kept_chars),
            attempt=_cut(self.attempt, kept_chars),
            feedback=_cut(self.feedback, kept_chars),
        )

    def longest(self) -> int:
        """Characters of the longest text."""
        return max(len(text or "") for text in (self.demo, self.attempt, self.feedback))


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

    The blocks are added to the last message of the user's; all other messages stay as they are. Without a
    demonstration and without feedback it is the plain prompt. Raises `PromptTooLong` if question, closing and template
    alone pass `config.max_prompt_tokens`, which `frame_length` tells beforehand.
    """
    blocks = _blocks(attempts, position, routing, tokenizer, config)

    def render(kept_chars: int) -> Int32:
        return render_prompt(tokenizer, _with_blocks(task, blocks.cut(kept_chars)), enable_thinking=enable_thinking)

    kept = blocks.longest()
    ids = render(kept)
    if len(ids) > config.max_prompt_tokens:
        kept = largest_fitting(lambda n: len(render(n)) <= config.max_prompt_tokens, kept)
        ids = render(kept)
    if len(ids) > config.max_prompt_tokens:
        raise PromptTooLong(
            f"task {task.id}: the question and the hindsight template take {len(ids)} tokens; "
            f"allowed: at most hindsight.max_prompt_tokens={config.max_prompt_tokens}"
        )
    return HindsightPrompt(
        task_id=task.id,
        sample_index=attempts[position].sample_index,
        token_ids=ids,
        mask=routing.mask,
        demo_from=None if routing.demo_from is None else attempts[routing.demo_from].sample_index,
        used_feedback=routing.use_feedback,
        num_demo_chars_cut=max(0, len(blocks.demo or "") - kept),
        num_feedback_chars_cut=max(0, len(blocks.feedback or "") - kept),
        num_attempt_chars_cut=max(0, len(blocks.attempt or "") - kept),
        template_version=TEMPLATE_VERSION,
    )


def frame_length(
    task: Task, tokenizer: ChatTokenizer, config: HindsightConfig, *, enable_thinking: bool = False
) -> int:
    """Tokens of the longest hindsight prompt of a task when all that may be cut is cut.

    A task whose frame fits `config.max_prompt_tokens` has a prompt for whatever its attempts and their feedback say.
    """
    both = config.include_demo and config.include_feedback and not config.feedback_only_without_demo
    frames = [Blocks(demo=CUT_MARK, feedback=CUT_MARK)] if both else [Blocks(demo=CUT_MARK), Blocks(feedback=CUT_MARK)]
    if config.include_own_attempt:
        frames = [replace(blocks, attempt=CUT_MARK) for blocks in frames]
    turns = [_with_blocks(task, blocks) for blocks in frames]
    return max(len(render_prompt(tokenizer, messages, enable_thinking=enable_thinking)) for messages in turns)


def _blocks(
    attempts: Sequence[Attempt], position: int, routing: Routing, tokenizer: ChatTokenizer, config: HindsightConfig
) -> Blocks:
    """What an attempt's prompt shows, whole. The own attempt is left out where it is its own demonstration."""
    demo = None if routing.demo_from is None else attempts[routing.demo_from].text
    repeated = config.include_own_attempt and routing.demo_from != position
    attempt = attempts[position].text if repeated else None
    if config.remove_thinking:
        demo, attempt = _without_thinking(demo), _without_thinking(attempt)
    feedback = attempts[position].feedback if routing.use_feedback else None
    return Blocks(
        demo=_inert(demo, tokenizer), attempt=_inert(attempt, tokenizer), feedback=_inert(feedback, tokenizer)
    )


def _with_blocks(task: Task, blocks: Blocks) -> list[Message]:
    """The task's messages; the user's last one is the question, with what hindsight adds. The own attempt alone is
    nothing to look back on."""
    messages = list(task.messages)
    if blocks.demo is None and blocks.feedback is None:
        return messages
    turn = last_user_turn(messages)
    parts = [messages[turn].content]
    for header, text in (
        (DEMO_HEADER, blocks.demo),
        (ATTEMPT_HEADER, blocks.attempt),
        (FEEDBACK_HEADER, blocks.feedback),
    ):
        if text is not None:
            parts.append(f"{header}\n{text}")
    messages[turn] = replace(messages[turn], content="\n\n".join([*parts, CLOSING]))
    return messages


def _cut(text: str | None, kept_chars: int) -> str | None:
    return None if text is None else cut(text, kept_chars)


def _inert(text: str | None, tokenizer: ChatTokenizer) -> str | None:
    return None if text is None else inert(text, tokenizer)


def _without_thinking(text: str | None) -> str | None:
    """Every turn of the model's without its thinking."""
    if text is None:
        return None
    return ASSISTANT_MARK.join(_THINKING.sub("", turn) for turn in text.split(ASSISTANT_MARK))

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
from sdpo.types import HindsightPrompt, Int32, Message, RolloutHeader, Task, Verdict

TEMPLATE_VERSION = "1"
DEMO_HEADER = "Correct solution:"
ATTEMPT_HEADER = "Your earlier attempt:"
FEEDBACK_HEADER = "Feedback from your unsuccessful earlier attempt:"
SUCCESS_FEEDBACK_HEADER = "Feedback from your successful earlier attempt:"
HEADERS = (DEMO_HEADER, ATTEMPT_HEADER, FEEDBACK_HEADER, SUCCESS_FEEDBACK_HEADER)
"""The blocks of a hindsight prompt, in the order in which they are shown."""
CLOSING = "Correctly solve the original question."
_THINKING = re.compile(r"(?:<think>|\A(?=(?:(?!<think>).)*</think>)).*?</think>\s*", re.DOTALL)
"""A thinking block; its opening tag is missing where the chat template has put it into the prompt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """What routing needs of one attempt of a group."""

    sample_index: int
    text: str
    reward: float
    success: bool
    feedback: str

    @classmethod
    def of(cls, header: RolloutHeader, verdict: Verdict) -> "Attempt":
        """Return what routing needs of a judged attempt; a lost one counts as a failure without feedback."""
        return cls(
            sample_index=header.sample_index,
            text=header.text,
            reward=verdict.reward or 0.0,
            success=verdict.success,
            feedback=verdict.feedback,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Routing:
    """Which demonstration (position in the group) and whether feedback; mask is False if neither."""

    demo_from: int | None
    use_feedback: bool

    @property
    def mask(self) -> bool:
        return self.demo_from is not None or self.use_feedback


def route_group(attempts: Sequence[Attempt], config: HindsightConfig) -> list[Routing]:
    """Return one routing per attempt, by position.

    The demonstration is the success with the highest reward, of equals the first in group order. No attempt is shown
    one with a lower reward than its own.
    """
    successes = [i for i, a in enumerate(attempts) if config.include_demo and a.success]
    routings = []
    for i, attempt in enumerate(attempts):
        candidates = [j for j in successes if not (config.exclude_own_success and j == i)]
        best = max(candidates, key=lambda j: attempts[j].reward, default=None)
        demo_from = None if best is None or attempts[best].reward < attempt.reward else best
        wanted = config.include_feedback and not (config.feedback_only_without_demo and demo_from is not None)
        routings.append(Routing(demo_from=demo_from, use_feedback=wanted and bool(attempt.feedback.strip())))
    return routings


Blocks = dict[str, str]
"""The texts that hindsight adds to the question, by header."""


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
        shown = {header: cut(text, kept_chars) for header, text in blocks.items()}
        return _rendered(task, _with_blocks(task, shown), tokenizer, enable_thinking)

    def num_cut(header: str) -> int:
        return max(0, len(blocks.get(header, "")) - kept)

    kept = max(map(len, blocks.values()), default=0)
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
        num_demo_chars_cut=num_cut(DEMO_HEADER),
        num_feedback_chars_cut=num_cut(_feedback_header(attempts[position])),
        num_attempt_chars_cut=num_cut(ATTEMPT_HEADER),
        template_version=TEMPLATE_VERSION,
    )


def frame_length(
    task: Task, tokenizer: ChatTokenizer, config: HindsightConfig, *, enable_thinking: bool = False
) -> int:
    """Return the tokens of the longest hindsight prompt of a task when all that may be cut is cut.

    A task whose frame fits `config.max_prompt_tokens` has a prompt for whatever its attempts and their feedback say.
    """
    both = config.include_demo and config.include_feedback and not config.feedback_only_without_demo
    own = [ATTEMPT_HEADER] if config.include_own_attempt else []
    frames = [[DEMO_HEADER, header] if both else [header] for header in (FEEDBACK_HEADER, SUCCESS_FEEDBACK_HEADER)]
    turns = [_with_blocks(task, dict.fromkeys([*headers, *own], CUT_MARK)) for headers in [[DEMO_HEADER], *frames]]
    return max(len(_rendered(task, messages, tokenizer, enable_thinking)) for messages in turns)


def _rendered(task: Task, messages: Sequence[Message], tokenizer: ChatTokenizer, enable_thinking: bool) -> Int32:
    """Return a prompt with the task's tools, so that teacher and student see the same ones."""
    return render_prompt(tokenizer, messages, tools=task.tools, enable_thinking=enable_thinking)


def _blocks(
    attempts: Sequence[Attempt], position: int, routing: Routing, tokenizer: ChatTokenizer, config: HindsightConfig
) -> Blocks:
    """Return what an attempt's prompt shows, whole. The own attempt is left out where it is its own demonstration."""
    texts: Blocks = {}
    if routing.demo_from is not None:
        texts[DEMO_HEADER] = attempts[routing.demo_from].text
    if config.include_own_attempt and routing.demo_from != position:
        texts[ATTEMPT_HEADER] = attempts[position].text
    if config.remove_thinking:
        texts = {header: _without_thinking(text) for header, text in texts.items()}
    if routing.use_feedback:
        texts[_feedback_header(attempts[position])] = attempts[position].feedback
    return {header: inert(text, tokenizer) for header, text in texts.items()}


def _with_blocks(task: Task, blocks: Blocks) -> list[Message]:
    """Return the task's messages; the user's last one is the question, with what hindsight adds.

    The own attempt alone is nothing to look back on: the messages stay as they are.
    """
    messages = list(task.messages)
    if not blocks.keys() - {ATTEMPT_HEADER}:
        return messages
    turn = last_user_turn(messages)
    shown = [f"{header}\n{blocks[header]}" for header in HEADERS if header in blocks]
    messages[turn] = replace(messages[turn], content="\n\n".join([messages[turn].content, *shown, CLOSING]))
    return messages


def _feedback_header(attempt: Attempt) -> str:
    return SUCCESS_FEEDBACK_HEADER if attempt.success else FEEDBACK_HEADER


def _without_thinking(text: str) -> str:
    """Return the text with the thinking cut out of every turn of the model's."""
    return ASSISTANT_MARK.join(_THINKING.sub("", turn) for turn in text.split(ASSISTANT_MARK))

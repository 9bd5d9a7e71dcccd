"""From messages to prompt tokens, by the model's own chat template, and to words that a demonstration can show."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, Protocol

import numpy as np

from sdpo.cutting import cut, largest_fitting
from sdpo.errors import ModelError
from sdpo.thinking import OPEN, ends_in_thinking
from sdpo.types import Int32, Message

Tools = Sequence[Mapping[str, Any]]
"""Tools as a chat template is given them; see `sdpo.types.Task`."""
ASSISTANT_MARK = "\n\n[assistant]\n"
"""Where, in a conversation as text, the model writes again."""


class ChatTokenizer(Protocol):
    """The part of a Hugging Face tokenizer that prompts need."""

    @property
    def added_tokens_decoder(self) -> Mapping[int, Any]:
        """Token id -> added token, with its `content` and whether it is `special`."""
        ...

    def apply_chat_template(self, conversation: list[dict[str, str]], **kwargs: Any) -> Any: ...

    def encode(self, text: str, *, add_special_tokens: bool = ...) -> list[int]: ...


def render_prompt(
    tokenizer: ChatTokenizer, messages: Sequence[Message], *, tools: Tools = (), enable_thinking: bool = False
) -> Int32:
    """Return the prompt tokens int32 [P] that end with the assistant header. `tools`: see `sdpo.types.Task`.

    Raises `ModelError` if the template refuses the messages, or makes nothing of them.
    """
    ids = _encode(tokenizer, _accepted(tokenizer, messages, tools, enable_thinking))
    if not len(ids):
        raise ModelError("the model's chat template makes an empty prompt of the messages")
    return ids


def render_turn(
    tokenizer: ChatTokenizer,
    messages: Sequence[Message],
    observation: Sequence[Message],
    *,
    stop_id: int,
    tools: Tools = (),
    enable_thinking: bool = False,
) -> Int32:
    """Return int32 [E]: what the environment writes after a turn of the model, up to and with the next assistant
    header.

    `messages` is what the model was asked, `stop_id` the token with which it ended its turn: the template writes it,
    too, and it is left out here. Control tokens that the observation spells out are broken up. Raises `ModelError` if
    the template cannot render such a conversation.
    """
    text = _continuation(tokenizer, messages, observation, tools, enable_thinking)
    stop = tokenizer.added_tokens_decoder.get(stop_id)
    if stop is not None and text.lstrip().startswith(stop.content):
        text = text.lstrip()[len(stop.content) :]
    return _encode(tokenizer, text)


def fit_turn(
    tokenizer: ChatTokenizer,
    messages: Sequence[Message],
    observation: Sequence[Message],
    max_tokens: int,
    *,
    stop_id: int,
    tools: Tools = (),
    enable_thinking: bool = False,
) -> tuple[Int32, tuple[Message, ...]] | None:
    """Return `render_turn` within `max_tokens`, and the observation as it is shown: of long ones head and tail.

    None where not even the template's own tokens fit. Raises as `render_turn`.
    """

    def shown(kept_chars: int) -> tuple[Message, ...]:
        return tuple(replace(m, content=cut(inert(m.content, tokenizer), kept_chars)) for m in observation)

    def render(kept_chars: int) -> Int32:
        return render_turn(
            tokenizer, messages, shown(kept_chars), stop_id=stop_id, tools=tools, enable_thinking=enable_thinking
        )

    kept = max((len(inert(m.content, tokenizer)) for m in observation), default=0)
    ids = render(kept)
    if len(ids) > max_tokens:
        kept = largest_fitting(lambda n: len(render(n)) <= max_tokens, kept)
        ids = render(kept)
    return None if len(ids) > max_tokens else (ids, shown(kept))


def check_turns(
    tokenizer: ChatTokenizer, role: Literal["user", "tool"], *, tools: Tools = (), enable_thinking: bool = False
) -> None:
    """Raises `ModelError` if the chat template cannot show observations of `role` after the model's turns."""
    probe = Message(role=role, content="probe of an observation")
    text = _continuation(tokenizer, [Message(role="user", content="?")], [probe], tools, enable_thinking)
    if probe.content not in text:
        raise _cannot_show([probe], "it leaves out what the message says")


def check_tools_shown(
    tokenizer: ChatTokenizer, messages: Sequence[Message], tools: Tools, *, enable_thinking: bool = False
) -> None:
    """Raises `ModelError` if the model would see none of `tools`, or not all of them.

    The chat template must show the name of each, or leave all of them out where the messages name each.
    """
    names = [tool["function"]["name"] for tool in tools]
    text = _accepted(tokenizer, messages, tools, enable_thinking)
    if text == _accepted(tokenizer, messages, (), enable_thinking):
        text = "\n".join(message.content for message in messages)
    missing = [name for name in names if name not in text]
    if missing:
        raise ModelError(
            f"neither the model's chat template nor a message shows the tools {', '.join(missing)}; allowed: a chat "
            f"template that shows tools, or a system message with them, as env_workers.tools.prompt.tools_prompt makes"
        )


def opens_thinking(
    tokenizer: ChatTokenizer,
    messages: Sequence[Message],
    observation: Sequence[Message] = (),
    *,
    tools: Tools = (),
    enable_thinking: bool = False,
) -> bool:
    """Whether the prompt of the model's next turn ends inside a thinking block, so that its reply begins in one.

    `observation` is what the model read after its own turn; without one the turn is the first. What the messages
    themselves say of `<think>` does not count: only what the template writes after them.
    """
    turns = [*messages]
    if observation:
        turns += [Message(role="assistant", content=_sentinel(messages, tools)), *observation]
    text = _accepted(tokenizer, turns, tools, enable_thinking)
    if not ends_in_thinking(text):
        return False
    before = _accepted(tokenizer, turns, tools, enable_thinking, add_generation_prompt=False)
    if before != text and text.startswith(before):
        return ends_in_thinking(text[len(before) :])
    return text.rstrip().endswith(OPEN)


def in_words(transcript: str, observation: Sequence[Message]) -> str:
    """Return the conversation so far and an observation, ready for the model's next words.

    The form of `RolloutHeader.text` after several turns: the model's first words, then for each message of an
    observation its role in brackets on a line of its own and what it says, then `[assistant]` and the model's next
    words, and so on.
    """
    return transcript + "".join(f"\n\n[{m.role}]\n{m.content}" for m in observation) + ASSISTANT_MARK


def inert(text: str, tokenizer: ChatTokenizer) -> str:
    """Break up the control tokens that a text spells out: what a program printed must not end anybody's turn."""
    for token in tokenizer.added_tokens_decoder.values():
        if token.special and token.content in text:
            text = text.replace(token.content, f"{token.content[0]} {token.content[1:]}")
    return text


def last_user_turn(messages: Sequence[Message]) -> int:
    """Return the position of the user's last message. Raises `ValueError` if the user says nothing."""
    turns = [i for i, message in enumerate(messages) if message.role == "user"]
    if not turns:
        raise ValueError("none of the messages is the user's")
    return turns[-1]


def _continuation(
    tokenizer: ChatTokenizer,
    messages: Sequence[Message],
    observation: Sequence[Message],
    tools: Tools,
    enable_thinking: bool,
) -> str:
    """Return what the template writes after the words of an assistant's turn that an observation follows."""
    sentinel = _sentinel([*messages, *observation], tools)
    turn = Message(role="assistant", content=sentinel)
    shown = [replace(m, content=inert(m.content, tokenizer)) for m in observation]
    try:
        text = _render(tokenizer, [*messages, turn, *shown], tools, enable_thinking)
    except Exception as error:  # whatever a template raises: Jinja's errors, or its own
        raise _cannot_show(observation, " ".join(str(error).split())) from None
    _, found, after = text.partition(sentinel)
    if not found or sentinel in after:
        raise _cannot_show(observation, "it does not show once what the assistant said before")
    return after


def _accepted(
    tokenizer: ChatTokenizer,
    messages: Sequence[Message],
    tools: Tools,
    enable_thinking: bool,
    *,
    add_generation_prompt: bool = True,
) -> str:
    """Render messages. Raises `ModelError` for whatever the template raises: Jinja's errors, or its own."""
    try:
        return _render(tokenizer, messages, tools, enable_thinking, add_generation_prompt=add_generation_prompt)
    except Exception as error:
        roles = ", ".join(message.role for message in messages) + (" with tools" if tools else "")
        cause = " ".join(str(error).split())[:300] or type(error).__name__
        raise ModelError(f"the model's chat template refuses messages of the roles {roles}: {cause}") from None


def _sentinel(messages: Sequence[Message], tools: Tools) -> str:
    """Return words that neither the messages nor the tools hold."""
    said = "".join(m.content for m in messages) + str(tools)
    return next(name for n in range(len(said) + 1) if (name := f"turn{n}sentinel") not in said)


def _render(
    tokenizer: ChatTokenizer,
    messages: Sequence[Message],
    tools: Tools,
    enable_thinking: bool,
    *,
    add_generation_prompt: bool = True,
) -> str:
    text: str = tokenizer.apply_chat_template(
        [{"role": m.role, "content": m.content} for m in messages],
        tools=[dict(tool) for tool in tools] or None,
        tokenize=False,
        add_generation_prompt=add_generation_prompt,
        enable_thinking=enable_thinking,
    )
    return text


def _encode(tokenizer: ChatTokenizer, text: str) -> Int32:
    return np.asarray(tokenizer.encode(text, add_special_tokens=False), dtype=np.int32)


def _cannot_show(observation: Sequence[Message], why: str) -> ModelError:
    roles = ", ".join(sorted({m.role for m in observation}))
    return ModelError(f"the model's chat template cannot show a message of role {roles} after its answer: {why}")

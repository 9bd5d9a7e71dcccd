"""From messages to prompt tokens, by the model's own chat template."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from sdpo.types import Int32, Message


class ChatTokenizer(Protocol):
    """The part of a Hugging Face tokenizer that prompts need."""

    @property
    def added_tokens_decoder(self) -> Mapping[int, Any]:
        """Token id -> added token, with its `content` and whether it is `special`."""
        ...

    def apply_chat_template(self, conversation: list[dict[str, str]], **kwargs: Any) -> Any: ...

    def encode(self, text: str, *, add_special_tokens: bool = ...) -> list[int]: ...


def render_prompt(tokenizer: ChatTokenizer, messages: Sequence[Message], *, enable_thinking: bool = False) -> Int32:
    """Prompt tokens int32 [P] that end with the assistant header."""
    text = tokenizer.apply_chat_template(
        [{"role": m.role, "content": m.content} for m in messages],
        tokenize=False,
        add_generation_prompt=True,
        enable_thinking=enable_thinking,
    )
    return np.asarray(tokenizer.encode(text, add_special_tokens=False), dtype=np.int32)


def last_user_turn(messages: Sequence[Message]) -> int:
    """Position of the user's last message. Raises `ValueError` if the user says nothing."""
    turns = [i for i, message in enumerate(messages) if message.role == "user"]
    if not turns:
        raise ValueError("none of the messages is the user's")
    return turns[-1]

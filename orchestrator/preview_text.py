"""Prompts as text: by a model's tokenizer, or by role and in characters where there is none."""

from collections.abc import Mapping
from typing import Any

from sdpo.chat import ChatTokenizer
from sdpo.types import Int32


class CharacterTokenizer:
    """Stands in for a tokenizer: messages by role, one id a character. It knows no control tokens."""

    added_tokens_decoder: Mapping[int, Any] = {}

    def apply_chat_template(self, conversation: list[dict[str, str]], **kwargs: Any) -> str:
        """`[role]` on a line of its own before every message, `[assistant]` at the end."""
        turns = [f"[{message['role']}]\n{message['content']}\n\n" for message in conversation]
        return "".join(turns) + "[assistant]\n"

    def encode(self, text: str, *, add_special_tokens: bool = False) -> list[int]:
        """Code points."""
        return [ord(character) for character in text]

    def decode(self, token_ids: list[int], **kwargs: Any) -> str:
        """The text of code points."""
        return "".join(map(chr, token_ids))


def length_of(tokenizer: ChatTokenizer, text: str) -> int:
    """Tokens (or characters) of a text."""
    return len(tokenizer.encode(text, add_special_tokens=False))


def text_of(tokenizer: Any, ids: Int32) -> str:
    """What the ids say, control tokens included."""
    text: str = tokenizer.decode(ids.tolist(), skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return text

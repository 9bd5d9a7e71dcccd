"""Prompts as text, with a model's tokenizer or, without one, by role and in characters."""

import json
from collections.abc import Mapping
from typing import Any

from sdpo.types import Int32


class CharacterTokenizer:
    """A tokenizer without a model: messages by role, one id a character, no control tokens."""

    added_tokens_decoder: Mapping[int, Any] = {}

    def apply_chat_template(self, conversation: list[dict[str, str]], **kwargs: Any) -> str:
        """Put `[role]` on a line of its own before every message, `[tools]` first, and `[assistant]` at the end."""
        shown = "".join(f"{json.dumps(tool, ensure_ascii=False)}\n" for tool in kwargs.get("tools") or ())
        turns = [f"[tools]\n{shown}\n"] if shown else []
        turns += [f"[{message['role']}]\n{message['content']}\n\n" for message in conversation]
        return "".join(turns) + "[assistant]\n"

    def encode(self, text: str, *, add_special_tokens: bool = False) -> list[int]:
        """Return the code points of a text."""
        return [ord(character) for character in text]

    def decode(self, token_ids: list[int], **kwargs: Any) -> str:
        """Return the text of code points."""
        return "".join(map(chr, token_ids))


def text_of(tokenizer: Any, ids: Int32) -> str:
    """Return the text of token ids, control tokens included."""
    text: str = tokenizer.decode(ids.tolist(), skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return text

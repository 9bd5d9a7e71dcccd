"""Split a decoded text into the texts of its tokens."""

from collections.abc import Callable, Sequence
from itertools import pairwise

_UNFINISHED = "\ufffd"
_MOST_WAITING = 8
"""Number of tokens after which every character is complete: a character has at most 4 bytes."""


def token_pieces(token_ids: Sequence[int], decode: Callable[[Sequence[int]], str]) -> list[str]:
    """Return one text for each token; joined they are `decode(token_ids)`.

    A character whose bytes are spread over several tokens belongs to the token of its first byte; a token that only
    continues it has an empty text. Bytes that are no UTF-8 are U+FFFD, each in the text of its own token.
    """
    whole = decode(token_ids)
    alone = {token: decode([token]) for token in set(token_ids)}
    pieces = [alone[token] for token in token_ids]
    if "".join(pieces) == whole:
        return pieces
    ends = _ends(token_ids, decode, len(whole))
    return [whole[start:end] for start, end in pairwise([0, *ends])]


def _ends(token_ids: Sequence[int], decode: Callable[[Sequence[int]], str], num_chars: int) -> list[int]:
    """Return for every token the number of characters that have begun by its end; the last is `num_chars`.

    Decodes a window that begins at a token where no character was unfinished, one such token before the last one.
    """
    ends: list[int] = []
    start, settled, chars_before, chars_settled = 0, 0, 0, 0
    for i in range(len(token_ids)):
        text = decode(token_ids[start : i + 1])
        ends.append(chars_settled + len(text) - chars_before)
        if not text.endswith(_UNFINISHED) or i + 1 - settled >= _MOST_WAITING:
            start, settled, chars_settled = settled, i + 1, ends[-1]
            chars_before = len(decode(token_ids[start:settled]))
    least = num_chars
    for i in reversed(range(len(ends))):
        least = ends[i] = min(ends[i], least) if i < len(ends) - 1 else num_chars
    return ends

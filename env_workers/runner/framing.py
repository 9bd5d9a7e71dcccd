"""Frames between the host and the runner. Standard library only.

A frame is two big-endian uint32 sizes, a head (a JSON object) and a body (bytes). What a program made travels in
bodies only, so that neither side can take it for the protocol.
"""

import json
import struct
from collections.abc import Mapping
from typing import Any

MAX_HEAD_BYTES = 2**16
MAX_FRAME_BYTES = 16 * 2**20
SIZES = struct.Struct(">II")

_encoder = json.JSONEncoder(separators=(",", ":"))
_decoder = json.JSONDecoder()


def encode_json(message: Any) -> bytes:
    """Return a message as JSON on one line."""
    return _encoder.encode(message).encode()


def decode_json(data: bytes) -> Any:
    """Return the value of JSON that `encode_json` made. Raises ValueError or RecursionError."""
    text = data.decode()
    value, end = _decoder.raw_decode(text)
    if end != len(text):
        raise ValueError("more than one value")
    return value


def pack(head: Mapping[str, Any], body: bytes = b"") -> bytes:
    """Return the bytes of one frame."""
    data = encode_json(head)
    return SIZES.pack(len(data), len(body)) + data + body


def check_sizes(data: bytes) -> tuple[int, int]:
    """Return the sizes of head and body.

    Raises ValueError for sizes out of bounds; the message completes `sent ...`.
    """
    head, body = SIZES.unpack(data)
    if head > MAX_HEAD_BYTES or body > MAX_FRAME_BYTES:
        raise ValueError(f"a frame of {head} and {body} bytes")
    return head, body


def parse_head(data: bytes) -> dict[str, Any]:
    """Return the head. Raises ValueError for anything but a JSON object; the message completes `sent ...`."""
    try:
        head = decode_json(data)
    except (ValueError, RecursionError):
        head = None
    if not isinstance(head, dict):
        raise ValueError("a frame whose head is not a JSON object")
    return head

"""Decode the text of files that users wrote: UTF-8 alone, and in what other form a file seems to be."""

import codecs

_MARKS = (
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)
_LOOKED_AT_BYTES = 64


def decode(data: bytes) -> str:
    """Return UTF-8 text without its byte order mark. Raises `ValueError`: "UTF-16 text; allowed: UTF-8"."""
    if form := other_form(data):
        raise ValueError(f"{form} text; allowed: UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line_start = data.rfind(b"\n", 0, error.start) + 1
        line, column = data.count(b"\n", 0, error.start) + 1, error.start - line_start + 1
        where = f"line {line}, byte {column}" if line > 1 else f"byte {column}"
        raise ValueError(f"not UTF-8 text: 0x{data[error.start]:02x} at {where} (Latin-1?); allowed: UTF-8") from None


def other_form(data: bytes) -> str:
    """Return "UTF-16" or "UTF-32" for text that begins like it, with a byte order mark or without; else ""."""
    for mark, form in _MARKS:
        if data.startswith(mark):
            return form
    head = data[:_LOOKED_AT_BYTES]
    zeros = head.count(0)
    if head.lstrip(b"\0") and zeros * 3 >= len(head):
        return "UTF-32" if zeros * 3 >= 2 * len(head) else "UTF-16"
    return ""

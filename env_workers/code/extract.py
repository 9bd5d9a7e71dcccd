"""Finds the program in a response."""

import re

_FENCED_BLOCK = re.compile(r"```[^\n`]*\n(.*?)```", re.DOTALL)


def extract_program(text: str) -> str | None:
    """The longest closed fenced block of `text` (the first of equals); None when there is none or it is blank."""
    program = max(_FENCED_BLOCK.findall(text), key=len, default="")
    return program if program.strip() else None

"""Questions to a coding model, in the shape of the paper's: the role, the problem, the time limit, one fenced block."""

import ast
import re
import textwrap
from collections.abc import Sequence

from sdpo.types import Message

_ROLE = (
    "You are a coding expert. Solve the problem below with a correct Python program that meets its specification and "
    "passes all of its tests. {limit}{packages} You may think the problem through first. At the end, give the complete "
    "program in one block that is fenced with ```python and ```, without tests of your own."
)
_TYPING = ("Any", "Callable", "DefaultDict", "Deque", "Dict", "Iterable", "List", "Optional", "Set", "Tuple", "Union")
_METHOD = re.compile(r"(?ms)^[ \t]+(?=def )")
_SELF = re.compile(r"\(\s*self\s*,?\s*")


def question(text: str, time_limit_s: float, packages: Sequence[str] = ()) -> tuple[Message, ...]:
    """Return one user message. It names the time limit of one test, and `packages` that programs may import."""
    seconds = f"{time_limit_s:g} second{'' if time_limit_s == 1 else 's'}"
    beyond = f" Beside the standard library it may import: {', '.join(packages)}." if packages else ""
    role = _ROLE.format(limit=f"The time limit of each test is {seconds}.", packages=beyond)
    return (Message(role="user", content=f"{role}\n\n{text.strip()}"),)


def with_starter(text: str, starter: str) -> str:
    """Return a problem that names the function to write."""
    return f"{text.strip()}\n\nThe program must define this function:\n```python\n{starter.strip()}\n```"


def plain_function(starter: str) -> str:
    """Return a method's starter code as that of a function: no class around it, no `self`, and the imports it needs."""
    start = _METHOD.search(starter)
    body = starter[start.start() :] if start else starter
    function = _SELF.sub("(", textwrap.dedent(body).rstrip(), count=1)
    names = [name for name in _TYPING if re.search(rf"\b{name}\b", function)]
    return f"from typing import {', '.join(names)}\n\n{function}" if names else function


def completion(prompt: str) -> str:
    """Return the request to complete a function, given as source."""
    return f"Complete this program; it must hold its imports and helpers too:\n```python\n{prompt.strip()}\n```"


def with_asserts(text: str, asserts: list[str]) -> str:
    """Return a problem with examples of asserts, which name its function."""
    shown = "\n".join(source.strip() for source in asserts)
    return f"{text.strip()}\n\nIts tests are asserts such as:\n```python\n{shown}\n```"


def helpers_of(prompt: str, entry_point: str) -> str:
    """Return what a prompt defines beside the function to complete: imports and helpers. Raises SyntaxError."""
    module = ast.parse(f"{prompt.rstrip()}\n    pass\n")
    helpers = [n for n in module.body if not (isinstance(n, ast.FunctionDef) and n.name == entry_point)]
    return "\n".join(map(ast.unparse, helpers))

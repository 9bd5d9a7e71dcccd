"""One module a command of `sdpo`: NAME, HELP, add_arguments(parser), run(arguments) -> exit code.

Modules import little at the top, so that every command starts fast; what a command needs it imports when it runs.
"""

import math
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from sdpo.bounds import allows, bare, in_words
from sdpo.paths import expanded
from sdpo.show import show


class Command(Protocol):
    """What the module of a command offers."""

    NAME: str
    HELP: str

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the command's arguments."""

    def run(self, arguments: Namespace) -> int:
        """Do it; returns the exit code. Raises `SdpoError` for what is to be one line on the terminal."""


def location(text: str) -> str:
    """Type of an argument that is a path or a URI: `~` at its beginning is a home folder."""
    try:
        return expanded(text)
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from None


def path(text: str) -> Path:
    """Type of an argument that is a path, as `location`."""
    return Path(location(text))


def number(kind: Any) -> Callable[[str], Any]:
    """Return the type of an argument that is a number of this type of `sdpo.bounds`."""
    parse, rules = bare(kind)
    allowed = f"{'a whole number' if parse is int else 'a number'} {in_words(rules)}"

    def bounded(text: str) -> Any:
        try:
            value = parse(text)
        except ValueError:
            value = math.nan
        if not allows(rules, value):
            raise ArgumentTypeError(f"{show(text)}; allowed: {allowed}")
        return value

    return bounded


def add_run_file(parser: ArgumentParser) -> None:
    """RUN.yaml and its overrides, the last arguments of a command that takes them."""
    parser.add_argument("run_file", metavar="RUN.yaml", type=location)
    add_overrides(parser)


def add_overrides(parser: ArgumentParser) -> None:
    """key=value arguments, as `arguments.override`."""
    parser.add_argument("override", nargs="*", metavar="key=value", help="for example batch.tasks=8")

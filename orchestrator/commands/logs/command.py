"""`sdpo logs RUN_DIR`."""

import os
import sys
import time
from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from orchestrator.commands import location, number
from sdpo.bounds import Steps

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from orchestrator.commands.logs.view import LogFilter
    from sdpo.log_line import Event

NAME = "logs"
HELP = "show the log lines of all actors of a run, merged by time"
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
LOOK_EVERY_S = 0.5


def add_arguments(parser: ArgumentParser) -> None:
    """Add the run and the filters."""
    parser.add_argument(
        "target", metavar="RUN", type=location, help="a run directory or its URI; with --address also a run's name"
    )
    parser.add_argument(
        "--address", help="the cluster's address, to add lines of actors that do not see the run directory"
    )
    parser.add_argument("--actor", metavar="NAME", help="show one actor, for example rollout-0, or a role: env")
    parser.add_argument("--level", choices=LEVELS, default="DEBUG", help="show this level and those above it")
    parser.add_argument("--step", type=number(Steps), metavar="N", help="show lines that name this step")
    parser.add_argument("--task", metavar="ID", help="show lines that name this task")
    parser.add_argument("--follow", action="store_true", help="also show new lines, until Ctrl-C")


def run(arguments: Namespace) -> int:
    """Print the lines, coloured on a terminal, as they were written elsewhere."""
    from orchestrator.commands.logs.view import LogFilter

    wanted = LogFilter(actor=arguments.actor, level=arguments.level, step=arguments.step, task=arguments.task)
    try:
        _show_all(arguments, wanted)
    except KeyboardInterrupt:
        pass
    except BrokenPipeError:  # the pager was closed
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _show_all(arguments: Namespace, wanted: "LogFilter") -> None:
    from orchestrator.commands.logs.view import Follower, merged
    from orchestrator.run_dir.remote_dir import origin_of, reading_copy
    from sdpo.errors import ConfigError
    from sdpo.run_layout import LOGS

    run_dir = reading_copy(arguments.target)
    folder = run_dir / LOGS
    if arguments.follow and origin_of(run_dir):
        raise ConfigError(f"--follow: the lines of {arguments.target} come with every step; allowed: without --follow")
    if not folder.is_dir() and arguments.address is None:
        raise ConfigError(f"{arguments.target}: no logs there; allowed: a run directory, or --address and a run's name")
    if arguments.follow and not folder.is_dir():
        raise ConfigError(f"--follow: {arguments.target} is not a run directory; without --follow Ray's files are read")
    fetched = _fetched(arguments, folder)
    follower = Follower(folder)
    show = _printer()
    for event in filter(wanted.fits, merged([*fetched, follower.look()])):
        show(event)
    while arguments.follow:
        time.sleep(LOOK_EVERY_S)
        for event in filter(wanted.fits, follower.look()):
            show(event)


def _fetched(arguments: Namespace, folder: "Path") -> "list[Iterable[Event]]":
    from orchestrator.commands.logs.fetch import fetch_logs
    from orchestrator.commands.logs.view import actors_of

    if arguments.address is None:
        return []
    run_name = folder.parent.resolve().name if folder.is_dir() else arguments.target
    found = fetch_logs(arguments.address, run_name, actors_of(folder))
    for line in found.missing:
        print(f"sdpo: {line}", file=sys.stderr)
    return found.sources


def _printer() -> "Callable[[Event], None]":
    if not sys.stdout.isatty():
        return lambda event: print(event, flush=True)
    from rich.console import Console

    from orchestrator.commands.logs.view import shown

    console = Console(highlight=False)
    return lambda event: console.print(shown(event), soft_wrap=True)

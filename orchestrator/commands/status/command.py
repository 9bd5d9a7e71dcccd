"""`sdpo status [RUN] [--address ADDRESS]`."""

import json
import os
import sys
import time
from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from orchestrator.commands import location, number
from sdpo.bounds import Seconds

if TYPE_CHECKING:
    from orchestrator.commands.status.watcher import Watcher

NAME = "status"
HELP = "show what a run does now: actors, queues, stages, reward, failures"


def add_arguments(parser: ArgumentParser) -> None:
    """Add the run, its address and the form of the output."""
    parser.add_argument(
        "target",
        nargs="?",
        metavar="RUN",
        type=location,
        help="a run directory or its URI, or a run's name; without one, all",
    )
    parser.add_argument(
        "--address", help="host:port of Ray, auto for the one on this node, or http://… of the dashboard [RAY_ADDRESS]"
    )
    parser.add_argument(
        "--once", action="store_true", help="print the status once; always so if the output is not a terminal"
    )
    parser.add_argument("--json", action="store_true", help="print the status once, as JSON: a list of runs")
    parser.add_argument("--every-s", type=number(Seconds), default=2.0, help="seconds between updates (default: 2)")


def run(arguments: Namespace) -> int:
    """Print the status once, or update it until the run is over or Ctrl-C."""
    from orchestrator.commands.status.watcher import Watcher
    from sdpo.storage import can_be_folder

    # a run directory knows its own address; RAY_ADDRESS is for names
    is_folder = arguments.target is not None and can_be_folder(arguments.target)
    address = arguments.address or (None if is_folder else os.environ.get("RAY_ADDRESS"))
    watcher = Watcher(arguments.target, address)
    if arguments.json:
        from dataclasses import asdict

        print(json.dumps([asdict(status) for status in watcher.look()], indent=2))
    elif arguments.once or not sys.stdout.isatty():
        from rich.console import Console

        from orchestrator.commands.status.show import picture

        Console(highlight=False).print(picture(watcher.look()))
    else:
        _watch(watcher, arguments.every_s)
    return 0


def _watch(watcher: "Watcher", every_s: float) -> None:
    from rich.live import Live
    from rich.text import Text

    from orchestrator.commands.status.show import picture
    from sdpo.errors import InfrastructureError

    with Live(picture(watcher.look()), auto_refresh=False) as live:
        try:
            while True:
                time.sleep(every_s)
                try:
                    live.update(picture(watcher.look()), refresh=True)
                except InfrastructureError as error:  # the run is over or does not answer
                    live.console.print(Text(f"{error}"))
                    return
        except KeyboardInterrupt:
            return

"""`sdpo stop RUN_DIR`, `sdpo stop --address ADDRESS RUN_NAME`."""

from argparse import ArgumentParser, Namespace

from orchestrator.commands import location, number
from sdpo.bounds import SecondsOrZero

NAME = "stop"
HELP = "end a run at the next batch boundary, with a checkpoint"


def add_arguments(parser: ArgumentParser) -> None:
    """Add the run and how to reach it."""
    parser.add_argument(
        "target",
        metavar="RUN",
        type=location,
        help="a run directory or its URI; with --address the name of a run in that cluster",
    )
    parser.add_argument(
        "--address", help="the cluster's address for Ray: host:port, or auto for the cluster of this node"
    )
    parser.add_argument("--now", action="store_true", help="(with --address) end without finishing the current step")
    parser.add_argument(
        "--timeout-s",
        type=number(SecondsOrZero),
        default=60.0,
        help="how long to wait until the run acknowledges the request (default: 60)",
    )


def run(arguments: Namespace) -> int:
    """Ask the run to stop, and print that it acknowledged the request; it ends some time after."""
    from orchestrator.commands.stop.stop import stop_in_cluster, stop_in_folder

    if arguments.address is None:
        stop_in_folder(arguments.target, arguments.now, arguments.timeout_s)
    else:
        stop_in_cluster(arguments.address, arguments.target, arguments.now, arguments.timeout_s)
    how = "at once" if arguments.now else "after the current step, with a checkpoint"
    print(f"{arguments.target}: the run acknowledged the request and ends {how}")
    return 0

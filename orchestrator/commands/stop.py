"""`sdpo stop RUN_DIR`, `sdpo stop --address ADDRESS RUN_NAME`."""

from argparse import ArgumentParser, Namespace

NAME = "stop"
HELP = "end a run at the next batch boundary, with a checkpoint"


def add_arguments(parser: ArgumentParser) -> None:
    """The run, and how to reach it."""
    parser.add_argument(
        "target", metavar="RUN", help="a run directory or its URI; with --address the name of a run in that cluster"
    )
    parser.add_argument("--address", help="of the cluster as Ray takes it: host:port, or auto for the one on this node")
    parser.add_argument("--now", action="store_true", help="(with --address) do not finish the step that is under way")
    parser.add_argument("--timeout-s", type=float, default=60.0, help="for the run to hear it (default: 60)")


def run(arguments: Namespace) -> int:
    """Ask, and say that the run has heard it; it ends some time after."""
    from orchestrator.stopping_from_outside import stop_in_cluster, stop_in_folder

    if arguments.address is None:
        stop_in_folder(arguments.target, arguments.now, arguments.timeout_s)
    else:
        stop_in_cluster(arguments.address, arguments.target, arguments.now, arguments.timeout_s)
    how = "at once" if arguments.now else "after the step that is under way, with a checkpoint"
    print(f"{arguments.target}: the run has heard it and ends {how}")
    return 0

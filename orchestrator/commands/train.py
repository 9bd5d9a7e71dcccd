"""`sdpo train RUN.yaml [key=value …]`."""

from argparse import ArgumentParser, Namespace

from orchestrator.commands import add_run_file

NAME = "train"
HELP = "train as a run file says, or go on with a run that was stopped"


def add_arguments(parser: ArgumentParser) -> None:
    """RUN.yaml and overrides."""
    add_run_file(parser)


def run(arguments: Namespace) -> int:
    """Train and print what came of it."""
    from orchestrator.summary import print_summary
    from orchestrator.train import run as train
    from sdpo.config.load import load_run_config

    print_summary(train(load_run_config(arguments.run_file, arguments.override)))
    return 0

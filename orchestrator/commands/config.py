"""`sdpo config RUN.yaml [key=value …]`."""

from argparse import ArgumentParser, Namespace

from orchestrator.commands import add_run_file

NAME = "config"
HELP = "print the resolved config of a run file"


def add_arguments(parser: ArgumentParser) -> None:
    """RUN.yaml and overrides."""
    add_run_file(parser)


def run(arguments: Namespace) -> int:
    """Print it; starts and writes nothing."""
    from sdpo.config.load import dump_run_config, load_run_config

    print(dump_run_config(load_run_config(arguments.run_file, arguments.override)), end="")
    return 0

"""`sdpo generate RUN.yaml FOLDER [key=value …]`."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from orchestrator.commands import add_overrides

NAME = "generate"
HELP = "sample and judge batches with the fixed weights of a run file's model, and record them to train on later"


def add_arguments(parser: ArgumentParser) -> None:
    """RUN.yaml, the folder, then overrides."""
    parser.add_argument("run_file", metavar="RUN.yaml")
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="for the batches; called again it goes on with it")
    add_overrides(parser)


def run(arguments: Namespace) -> int:
    """Record `steps` batches."""
    from orchestrator.generate import generate
    from sdpo.config.load import load_run_config
    from sdpo.errors import ConfigError

    if "=" in arguments.folder.name:
        raise ConfigError(f"FOLDER={arguments.folder}: allowed: a folder, before key=value")
    generate(load_run_config(arguments.run_file, arguments.override), arguments.folder)
    return 0

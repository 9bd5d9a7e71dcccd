"""`sdpo tasks RUN.yaml [FOLDER] [key=value …]`."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

NAME = "tasks"
HELP = "print the tasks of a run file as JSON lines, as its adapter makes them"


def add_arguments(parser: ArgumentParser) -> None:
    """RUN.yaml, then a folder or none, then overrides."""
    parser.add_argument("run_file", metavar="RUN.yaml")
    where = "folder to write train.jsonl and heldout.jsonl into; without one the training tasks are printed"
    parser.add_argument("override", nargs="*", metavar="[FOLDER] key=value", help=where)


def run(arguments: Namespace) -> int:
    """Print the training tasks, or write both files."""
    from orchestrator.task_listing import print_tasks, write_tasks
    from sdpo.config.load import load_run_config

    overrides: list[str] = arguments.override
    folder = Path(overrides[0]) if overrides and "=" not in overrides[0] else None
    config = load_run_config(arguments.run_file, overrides if folder is None else overrides[1:])
    if folder is None:
        print_tasks(config)
    else:
        write_tasks(config, folder)
    return 0

"""`sdpo tasks RUN.yaml [FOLDER] [key=value …]`."""

from argparse import ArgumentParser, Namespace

from orchestrator.commands import location, path

NAME = "tasks"
HELP = "print the tasks of a run file, read by its adapter, as JSON lines"


def add_arguments(parser: ArgumentParser) -> None:
    """Add RUN.yaml, an optional folder and overrides."""
    parser.add_argument("run_file", metavar="RUN.yaml", type=location)
    where = "folder to write train.jsonl and heldout.jsonl into; without one the training tasks are printed"
    parser.add_argument("override", nargs="*", metavar="[FOLDER] key=value", help=where)


def run(arguments: Namespace) -> int:
    """Print the training tasks, or write both files; return 0."""
    from sdpo.config.load import load_run_config

    overrides: list[str] = arguments.override
    folder = path(overrides[0]) if overrides and "=" not in overrides[0] else None
    config = load_run_config(arguments.run_file, overrides if folder is None else overrides[1:])

    from orchestrator.commands.tasks.listing import print_tasks, write_tasks

    if folder is None:
        print_tasks(config)
    else:
        write_tasks(config, folder)
    return 0

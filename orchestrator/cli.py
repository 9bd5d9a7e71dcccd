"""`sdpo`: the command line. Bad input is one line and exit code 2; a run that an alarm stopped is 3; an interrupted one
is 130; a broken one is 1."""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from sdpo.config.load import dump_run_config, load_run_config
from sdpo.errors import SdpoError


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    arguments = _parser().parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        command: Sequence[str] = arguments.override
        return int(arguments.run(arguments.run_file, command))
    except SdpoError as error:
        from orchestrator.failures import one_line

        print(f"sdpo: {one_line(error)}", file=sys.stderr)
        return error.exit_code


def _train(run_file: str, overrides: Sequence[str]) -> int:
    config = load_run_config(run_file, overrides)
    from orchestrator.summary import print_summary
    from orchestrator.train import run

    run_dir = run(config)
    print_summary(run_dir)
    return 0


def _config(run_file: str, overrides: Sequence[str]) -> int:
    print(dump_run_config(load_run_config(run_file, overrides)), end="")
    return 0


def _tasks(run_file: str, overrides: Sequence[str]) -> int:
    folder = Path(overrides[0]) if overrides and "=" not in overrides[0] else None
    config = load_run_config(run_file, overrides if folder is None else overrides[1:])
    from orchestrator.task_listing import print_tasks, write_tasks

    if folder is None:
        print_tasks(config)
    else:
        write_tasks(config, folder)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="sdpo", description="Self-Distillation Policy Optimization on Ray actors.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, function, text in (
        ("train", _train, "train as a run file says, or go on with a run that was stopped"),
        ("config", _config, "print the resolved config of a run file"),
        ("tasks", _tasks, "print the tasks of a run file as JSON lines, as its adapter makes them"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("run_file", metavar="RUN.yaml")
        if function is _tasks:
            where = "folder to write train.jsonl and heldout.jsonl into; without one the training tasks are printed"
            command.add_argument("override", nargs="*", metavar="[FOLDER] key=value", help=where)
        else:
            command.add_argument("override", nargs="*", metavar="key=value", help="for example batch.tasks=8")
        command.set_defaults(run=function)
    return parser

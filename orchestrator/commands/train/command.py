"""`sdpo train RUN.yaml [key=value …]`."""

import json
from argparse import ArgumentParser, Namespace
from pathlib import Path

from orchestrator.commands import add_run_file
from sdpo.run_layout import CONFIG, INPUTS

NAME = "train"
HELP = "train by a run file, or continue a run that was stopped"


def add_arguments(parser: ArgumentParser) -> None:
    """Add RUN.yaml and overrides."""
    add_run_file(parser)


def run(arguments: Namespace) -> int:
    """Train and print the summary."""
    from sdpo.config.load import load_run_config

    # first of all: the imports below take seconds, which a run file that is refused need not wait for
    config = load_run_config(arguments.run_file, [*of_run_directory(Path(arguments.run_file)), *arguments.override])

    from orchestrator.commands.train.summary import print_summary
    from orchestrator.train import run as train

    print_summary(train(config))
    return 0


def of_run_directory(run_file: Path) -> list[str]:
    """Return overrides of `dir` and `name` for a config.yaml in a run directory: that directory, also when it was
    renamed or moved after the file was written. For any other file return nothing.
    """
    folder = run_file.absolute().parent
    if run_file.name != CONFIG or not (folder / INPUTS).is_file():
        return []
    from orchestrator.run_dir.remote_dir import origin_of

    if origin_of(folder) is not None:  # a local copy of a directory in a store
        return []
    return [f"dir={_quoted(str(folder.parent))}", f"name={_quoted(folder.name)}"]


def _quoted(text: str) -> str:
    """Return text in YAML's quotes, of which an override takes what they enclose."""
    return json.dumps(text, ensure_ascii=False)

"""`sdpo tasks`: the tasks of a run, read by its adapter and checked by their environments."""

import os
import sys
from pathlib import Path

from orchestrator.inputs.inputs import TaskSets
from sdpo.config import RunConfig
from sdpo.errors import ConfigError
from sdpo.files import write_atomically
from sdpo.taskfile import to_line


def print_tasks(config: RunConfig) -> None:
    """Print the training tasks as JSON lines, until the reader of a pipe (`| head`) closes it."""
    try:
        for task in TaskSets.load(config).train:
            print(to_line(task))
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def write_tasks(config: RunConfig, folder: Path) -> None:
    """Write train.jsonl and heldout.jsonl, task files that need no adapter, into `folder`. Raises `ConfigError`."""
    sets = TaskSets.load(config)
    for name, tasks in (("train", sets.train), ("heldout", sets.heldout)):
        if not tasks:
            continue
        file = folder / f"{name}.jsonl"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_atomically(file, "".join(f"{to_line(task)}\n" for task in tasks))
        except OSError as error:
            raise ConfigError(f"{file}: cannot be written: {error.strerror}") from None
        print(f"{file}: {len(tasks)} tasks")

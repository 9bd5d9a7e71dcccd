"""Option `unsupported` of the assert-style adapters: what to do with tasks whose tests a proxy cannot carry."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from env_workers.adapters.fields import Options
from env_workers.code.tests import UnsupportedAsserts, parse_tests
from sdpo.errors import TaskFileError
from sdpo.types import Task

log = logging.getLogger(__name__)

UNSUPPORTED = ("refuse", "skip", "open")


def carried(path: str, tasks: Iterator[Task], chosen: Options) -> Iterator[Task]:
    """Yield the tasks, as option `unsupported` says: refuse (default), skip (the count is logged), open."""
    action = chosen.choice("unsupported", UNSUPPORTED, "refuse")
    skipped: list[str] = []
    for task in tasks:
        try:
            parse_tests(task)
        except UnsupportedAsserts as error:
            if action == "refuse":
                raise TaskFileError(f"{path}: {error}; tasks.options.unsupported: skip, or open") from None
            if action == "skip":
                skipped.append(task.id)
                continue
            task = _open(task)
            parse_tests(task)
        yield task
    if skipped:
        log.warning("%s: skipped %d tasks whose tests no proxy carries: %s", path, len(skipped), ", ".join(skipped))


def _open(task: Task) -> Task:
    test: Mapping[str, Any] = task.payload["tests"][0]
    return replace(task, payload={**task.payload, "tests": [{**test, "open": True}]})

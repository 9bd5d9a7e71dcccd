"""Loads the tools of a run's tasks in sandboxes before anything starts."""

import os
import sys
from collections.abc import Sequence

from env_workers.tools.loading import check_loads, tasks_with_tools
from orchestrator.inputs.location import at_its_line
from sdpo.config import EnvConfig
from sdpo.errors import InfrastructureError, SandboxUnavailable
from sdpo.types import Task

MAX_SIDE_BY_SIDE = 8
TOTAL_S = 60.0
"""After which the tools that were not loaded are left to the env workers."""


def check_tools_load(config: EnvConfig, path: str, tasks: Sequence[Task]) -> None:
    """Load setup, tools and checks of `tasks`, read from `path`. Raises `TaskFileError` with file, task, key and line.

    Where this machine has no working sandbox one line on stderr says so; env workers then find what does not load.
    """
    tasks = tasks_with_tools(tasks)
    if not tasks:
        return
    from env_workers.sandbox.pool import SandboxPool  # imports the sandboxes, which a run of other tasks may lack

    count = min(MAX_SIDE_BY_SIDE, len(os.sched_getaffinity(0)))
    pool = SandboxPool(config.model_copy(update={"sandboxes_per_worker": count}), "sdpo-check", "tools")
    try:
        left = check_loads(
            tasks, pool, count, max(5.0, config.time_limit_s), TOTAL_S, lambda task_id: at_its_line(path, task_id)
        )
        if left:
            print(f"sdpo: {left} sources of tools of {path} were not tried within {TOTAL_S:g} s", file=sys.stderr)
    except (InfrastructureError, SandboxUnavailable) as error:
        print(f"sdpo: the tools of {path} were not loaded before the start: {error}", file=sys.stderr)
    finally:
        pool.close()

"""Loads the tools of a run's tasks in sandboxes before anything starts."""

import os
import sys
from collections.abc import Sequence

from env_workers.tools.loading import check_loads, tasks_with_tools
from sdpo.config import EnvConfig
from sdpo.errors import InfrastructureError, SandboxUnavailable, TaskFileError
from sdpo.types import Task

MAX_SIDE_BY_SIDE = 8


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
        check_loads(tasks, pool, count, max(5.0, config.time_limit_s))
    except TaskFileError as error:
        raise TaskFileError(f"{path}: {error}") from None
    except (InfrastructureError, SandboxUnavailable) as error:
        print(f"sdpo: the tools of {path} were not loaded before the start: {error}", file=sys.stderr)
    finally:
        pool.close()

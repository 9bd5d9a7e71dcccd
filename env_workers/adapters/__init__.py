"""Adapters turn records that were not written for this project into tasks.

An adapter is called as `adapter(path, purpose, options)`: the path (or hub name) under `tasks.train` or
`tasks.heldout`, which of the two it is, and `tasks.options`. It yields tasks in the order in which they are to be kept,
the same ones each time. Ids are unique. What it cannot use raises TaskFileError: path, line, key, value, allowed.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

from sdpo.errors import ConfigError, TaskFileError, UserError
from sdpo.own_code import describe, load_own, nearest
from sdpo.taskfile import check_task_set
from sdpo.types import Task

Purpose = Literal["train", "heldout"]
Adapter = Callable[[str, Purpose, Mapping[str, Any]], Iterator[Task]]

BUILT_IN: Mapping[str, str] = {
    "records": "env_workers.adapters.general:records",
    "livecodebench": "env_workers.adapters.livecodebench:livecodebench",
    "humaneval": "env_workers.adapters.humaneval:humaneval",
    "mbpp": "env_workers.adapters.mbpp:mbpp",
    "sciknoweval": "env_workers.adapters.sciknoweval:sciknoweval",
    "toolalpaca": "env_workers.adapters.toolalpaca:toolalpaca",
    "function_calling": "env_workers.adapters.function_calling:function_calling",
    "bfcl": "env_workers.adapters.bfcl:bfcl",
    "math": "env_workers.adapters.math:math",
    "reasoning_gym": "env_workers.adapters.reasoning_gym:reasoning_gym",
}


def load_tasks_with(name: str, path: str, purpose: Purpose, options: Mapping[str, Any]) -> list[Task]:
    """Return the tasks that adapter `name` makes of `path`.

    Raises ConfigError for no such adapter, else TaskFileError.
    """
    adapter = load_adapter(name)
    tasks = []
    try:
        for task in adapter(path, purpose, options):
            if not isinstance(task, Task):
                raise TaskFileError(f"tasks.adapter={name}: made {type(task).__name__}; allowed: sdpo.types.Task")
            tasks.append(task)
    except UserError:
        raise
    except Exception as error:
        raise TaskFileError(f"{path}: tasks.adapter={name} failed: {describe(error)}") from error
    check_task_set(path, tasks)
    return tasks


def load_adapter(name: str) -> Adapter:
    """Return a built-in adapter, or module:function. Raises ConfigError for one that does not exist."""
    path = BUILT_IN.get(name, name)
    if not all(path.partition(":")):
        allowed = f"{', '.join(BUILT_IN)}, or module:function of your own"
        raise ConfigError(f"tasks.adapter={name} does not exist{nearest(name, BUILT_IN)}; allowed: {allowed}")
    adapter: Adapter = load_own(f"tasks.adapter={name}", path, "env.code")
    if not callable(adapter):
        raise ConfigError(f"tasks.adapter={name}: is no function; allowed: one that takes (path, purpose, options)")
    return adapter

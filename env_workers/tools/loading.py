"""Loads the Python of tasks with tools in a sandbox before a run, and tries their checks, without a call."""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from env_workers.code.outcome import Call, Outcome, parse_outcomes
from env_workers.environment import Executor, environment_class
from env_workers.tools.environments import ToolsEnvironment
from env_workers.tools.refusals import described, line_of, located, not_loaded
from env_workers.tools.toolbox import CHECK, Toolbox, joined, parse_toolbox
from sdpo.errors import TaskFileError
from sdpo.types import Task

LOADED = "_sdpo_loaded"
PROBES = ("", "0", "a b", "{}", "[1]")
"""Answers of different forms for a trial run of a check: one that fails in the same way with all of them cannot run."""
_NEVER = ("NameError", "UnboundLocalError", "ImportError", "ModuleNotFoundError", "AttributeError", "TypeError")
_LOADED_SOURCE = f"\n\ndef {LOADED}():\n    return True\n"


def tasks_with_tools(tasks: Sequence[Task]) -> list[Task]:
    """Return the tasks whose environment runs tools."""
    runs = {name: issubclass(environment_class(name), ToolsEnvironment) for name in {t.environment for t in tasks}}
    return [task for task in tasks if runs[task.environment]]


def check_loads(
    tasks: Sequence[Task],
    executor: Executor,
    num_side_by_side: int,
    time_limit_s: float,
    total_s: float,
    around: Callable[[str], AbstractContextManager[Any]] = nullcontext,
) -> int:
    """Load setup and tools of `tasks`, and try their checks; equal sources once. `time_limit_s`: of one load.

    No load begins after `total_s`; return how many distinct sources were not tried then. `around(task id)` encloses
    each load. Raises `TaskFileError` for the first task whose source does not load or whose check can never run, and
    what `executor` raises.
    """
    deadline_s = time.monotonic() + total_s
    distinct: dict[tuple[str, str], tuple[Task, Toolbox]] = {}
    for task in tasks:
        toolbox = parse_toolbox(task)
        distinct.setdefault(
            (toolbox.source, joined(toolbox.check_parts) if toolbox.answer.kind == CHECK else ""), (task, toolbox)
        )
    failed = threading.Event()

    def load(item: tuple[Task, Toolbox]) -> bool:
        if failed.is_set() or time.monotonic() > deadline_s:
            return False
        try:
            with around(item[0].id):
                _load(*item, executor, time_limit_s)
            return True
        except BaseException:
            failed.set()
            raise

    with ThreadPoolExecutor(num_side_by_side, thread_name_prefix="sdpo-load") as pool:
        loads = [pool.submit(load, item) for item in distinct.values()]
        return sum(not done.result() for done in loads)


def _load(task: Task, toolbox: Toolbox, executor: Executor, time_limit_s: float) -> None:
    source = toolbox.source + _LOADED_SOURCE
    records = executor.execute(source, [Call(function=LOADED).record(64)], time_limit_s, shared=True)
    (outcome,) = parse_outcomes(records, 1)
    if outcome.status != "returned":
        raise not_loaded(toolbox, outcome)
    if toolbox.answer.kind == CHECK:
        calls = [Call(function=CHECK, args=(probe, [])).record(1024) for probe in PROBES]
        source = joined(toolbox.check_parts)
        outcomes = parse_outcomes(executor.execute(source, calls, time_limit_s), len(PROBES))
        if can_never_run(outcomes):
            key, line = located(toolbox.check_parts, line_of(outcomes[0]))
            raise TaskFileError(
                f"task {task.id}: payload.{key}, line {line}: {described(outcomes[0])}; allowed: a check that can run"
            )


def can_never_run(outcomes: Sequence[Outcome]) -> bool:
    """Whether a check failed alike on all probes, in a way that no answer causes (None in place of a match is one)."""
    first = outcomes[0]
    alike = all(_identity(outcome) == _identity(first) for outcome in outcomes)
    if first.status == "raised":
        at_load = bool(first.frames) and first.frames[0][1] == "<module>"
        return alike and (at_load or (first.type_name in _NEVER and "NoneType" not in first.message))
    return alike and first.status in ("syntax_error", "exited")


def _identity(outcome: Outcome) -> tuple[Any, ...]:
    return outcome.status, outcome.type_name, outcome.message, outcome.frames

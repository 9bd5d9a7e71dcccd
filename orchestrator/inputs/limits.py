"""Whether the limits of a run can hold its tasks, which their environment has accepted: tests of programs, turns."""

import json
import sys
from collections.abc import Sequence

from env_workers.code.capacity import tests_that_fit, what_cannot_fit
from env_workers.code.tests import parse_tests
from sdpo.config import EnvConfig
from sdpo.errors import TaskFileError
from sdpo.types import Task

CODE_ENVIRONMENTS, TOOL_ENVIRONMENTS = ("code", "code_retry"), ("tools", "tools_native")


def check_limits_of_task(task: Task, config: EnvConfig) -> None:
    """Raise TaskFileError for a task that no attempt can pass under the limits of `config`."""
    turns = task.payload.get("user_turns", ()) if task.environment in TOOL_ENVIRONMENTS else ()
    if len(turns) >= config.max_turns:
        raise TaskFileError(
            f"task {task.id}: payload.user_turns has {len(turns)} turns, and the model answers each; "
            f"allowed: fewer than env.max_turns={config.max_turns}"
        )
    if task.environment not in CODE_ENVIRONMENTS:
        return
    input_bytes = output_bytes = 0
    for test in task.payload["tests"]:
        if test["kind"] == "stdin":
            input_bytes = max(input_bytes, len(test["input"].encode("utf-8", "replace")))
            output_bytes = max(output_bytes, len(test["expected"].encode("utf-8", "replace")))
        elif test["kind"] == "functional":
            input_bytes = max(input_bytes, len(json.dumps(test["inputs"])))
    reason = what_cannot_fit(config, _time_limit_s(task, config), input_bytes, output_bytes)
    if reason is not None:
        raise TaskFileError(f"task {task.id}: {reason}")


def time_warning(tasks: Sequence[Task], config: EnvConfig) -> str | None:
    """Return one line about coding tasks whose tests need more time than all tests of a program have; None if none."""
    coding = [task for task in tasks if task.environment in CODE_ENVIRONMENTS]
    short = [task for task in coding if _num_tests(task) > tests_that_fit(config, _time_limit_s(task, config))]
    if not short:
        return None
    worst = max(short, key=lambda task: _num_tests(task) * _time_limit_s(task, config))
    num_tests, limit_s = _num_tests(worst), _time_limit_s(worst, config)
    limits = config.sandbox
    by_wall = limits.wall_time_s <= limits.processor_time_s
    key, whole_s = ("wall_time_s", limits.wall_time_s) if by_wall else ("cpu_time_s", limits.processor_time_s)
    return (
        f"{len(short)} of {len(coding)} coding tasks have more tests than env.sandbox.{key}={whole_s:g} holds when "
        f"each takes its limit, most of them task {worst.id}: {num_tests} tests of {limit_s:g} s are "
        f"{num_tests * limit_s:g} s. A right but slow program fails there"
    )


def warn_of_time(tasks: Sequence[Task], config: EnvConfig) -> None:
    """Print the warning of `time_warning` to standard error, if there is one."""
    if (warning := time_warning(tasks, config)) is not None:
        print(f"warning: {warning}", file=sys.stderr, flush=True)


def _time_limit_s(task: Task, config: EnvConfig) -> float:
    return float(task.payload.get("time_limit_s") or config.time_limit_s)


def _num_tests(task: Task) -> int:
    tests = task.payload["tests"]
    if tests[0]["kind"] != "asserts":
        return len(tests)
    return len(parse_tests(Task(id=task.id, messages=(), environment="code", payload={"tests": tests})).tests)

"""Asserts in the program's own process, for those that a proxy cannot carry. The program can read and forge them.

All of the feature is here, but for the payload's key `open` (`env_workers.code.tests`) and the adapters' option
`unsupported: open`, which sets it.
"""

import ast
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from env_workers.code.outcome import Outcome, parse_outcomes
from env_workers.code.proxies import bound_names
from env_workers.environment import AssertProgram, Context
from sdpo.config import EnvConfig
from sdpo.errors import TaskFileError
from sdpo.types import Task

_GROUP = "_assert_group_{}"


def check_allowed(task: Task, config: EnvConfig) -> None:
    """Raise TaskFileError for a task with open asserts where `config` does not allow them."""
    tests = task.payload.get("tests")
    for test in tests if isinstance(tests, list | tuple) and not config.allow_open_asserts else ():
        if isinstance(test, Mapping) and test.get("kind") == "asserts" and test.get("open") is True:
            raise TaskFileError(
                f"task {task.id}: payload.tests[0].open=true: allowed: only with env.allow_open_asserts=true, for the "
                "program can then read and forge its tests"
            )


def run_open_asserts(
    context: Context, task: Task, program: str, test: AssertProgram, time_limit_s: float
) -> list[Outcome]:
    """Return one outcome a group of asserts. Raises as `check_allowed` and `Executor.execute`."""
    check_allowed(task, context.config)
    source, calls = open_program(program, test)
    records = context.sandbox.execute(source, calls, time_limit_s, shared=True)
    return read_open_outcomes(parse_outcomes(records, len(calls)), program, test)


def open_program(program: str, test: AssertProgram) -> tuple[str, list[dict[str, Any]]]:
    """Return the program with the asserts behind it, and one call a group, for `Executor.execute` with shared=True."""
    names = [_GROUP.format(index) for index in range(len(test.groups))]
    functions = [_function(name, group) for name, group in zip(names, test.groups, strict=True)]
    calls = [{"kind": "functional", "function": name, "inputs": []} for name in names]
    return "\n".join([program.rstrip(), "", test.source, *functions, ""]), calls


def read_open_outcomes(outcomes: Sequence[Outcome], program: str, test: AssertProgram) -> list[Outcome]:
    """Return the outcomes of those calls in the judge's words: passed, failed, or the program's own failure."""
    num_lines = len(program.rstrip().splitlines())
    return [_read(outcome, num_lines, group) for outcome, group in zip(outcomes, test.groups, strict=True)]


def _read(outcome: Outcome, num_lines: int, group: str) -> Outcome:
    if outcome.status == "returned":
        return Outcome(status="passed" if outcome.value is None else "garbled")
    if outcome.status == "syntax_error" and outcome.line > num_lines:
        return replace(outcome, line=0)
    if outcome.status != "raised":
        return outcome
    frames = tuple((line, function) for line, function in outcome.frames if line <= num_lines)
    is_programs_own = not outcome.frames or outcome.frames[-1][0] <= num_lines
    if outcome.type_name == "AssertionError" and not is_programs_own:
        return Outcome(status="failed", text=group, message="the assertion does not hold")
    return replace(outcome, frames=frames, text=group)


def _function(name: str, group: str) -> str:
    """Return the group as a function; names that it binds are global, so that the groups after it see them."""
    tree = ast.parse(group)
    names = sorted(bound_names([tree]))
    arguments = ast.arguments(posonlyargs=[], args=[], kwonlyargs=[], kw_defaults=[], defaults=[])
    body = [*([ast.Global(names)] if names else []), *tree.body]
    function = ast.FunctionDef(name=name, args=arguments, body=body, decorator_list=[])
    return ast.unparse(ast.fix_missing_locations(function))

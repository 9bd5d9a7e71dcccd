"""Asserts in the program's own process, for those that a proxy cannot carry. The program can read and forge them."""

import ast
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from env_workers.code.outcome import Outcome
from env_workers.environment import AssertProgram

_GROUP = "_assert_group_{}"


def open_program(program: str, test: AssertProgram) -> tuple[str, list[dict[str, Any]]]:
    """The program with the asserts behind it, and one call a group, for `Executor.execute` with shared=True."""
    setup = [line for line in (program.rstrip(), "", test.source) if line is not None]
    functions = [_function(_GROUP.format(index), group) for index, group in enumerate(test.groups)]
    calls = [
        {"kind": "functional", "function": _GROUP.format(index), "inputs": []} for index in range(len(test.groups))
    ]
    return "\n".join([*setup, *functions, ""]), calls


def read_open_outcomes(outcomes: Sequence[Outcome], program: str, test: AssertProgram) -> list[Outcome]:
    """The outcomes of those calls as the proxied judge words them: passed, failed, or the program's own failure."""
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
    own = not outcome.frames or outcome.frames[-1][0] <= num_lines
    if outcome.type_name == "AssertionError" and not own:
        return Outcome(status="failed", text=group, message="the assertion does not hold")
    return replace(outcome, frames=frames, text=group)


def _function(name: str, group: str) -> str:
    """The group as a function; what it gives a value is global, so that the groups after it see that."""
    body = ast.parse(group).body
    assigned = {
        node.id
        for statement in body
        for node in ast.walk(statement)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }
    imported = {
        alias.asname or alias.name.partition(".")[0]
        for statement in body
        for node in ast.walk(statement)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    names = sorted(assigned | imported)
    head = [ast.Global(names)] if names else []
    arguments = ast.arguments(posonlyargs=[], args=[], kwonlyargs=[], kw_defaults=[], defaults=[])
    function = ast.FunctionDef(name=name, args=arguments, body=[*head, *body], decorator_list=[])
    return ast.unparse(ast.fix_missing_locations(function))

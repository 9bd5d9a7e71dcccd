"""Cuts a test's source into groups: blocks that are run one after the other in one scope and judged one by one.

Cutting changes nothing of what is run. A group ends with the statement that holds an assert; what stands between two of
them (imports, shared names) belongs to the group after it, and a loop stays whole.
"""

import ast
from collections.abc import Sequence
from dataclasses import dataclass

CHECK = "check"


class NotGroupable(ValueError):
    """Test source that cannot be cut. The message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tests:
    """`setup` is a module's source, `groups` run after it in one function's scope."""

    __test__ = False  # no test class of pytest's

    setup: str
    groups: tuple[str, ...]


def group_asserts(asserts: Sequence[str]) -> tuple[str, ...]:
    """Groups of a list of assert statements, each a piece of source. Raises NotGroupable."""
    statements: list[ast.stmt] = []
    sources: list[str] = []
    groups = []
    for index, source in enumerate(asserts):
        tree = _parse(source, f"asserts[{index}]")
        body = tree.body
        if any(isinstance(node, ast.ImportFrom) and node.names[0].name == "*" for node in ast.walk(tree)):
            raise NotGroupable(f"asserts[{index}] holds `import *`; allowed: in setup")
        statements += body
        sources.append(source.strip())
        if any(map(_tests_something, body)):
            groups.append("\n".join(sources))
            sources = []
    if not groups:
        raise NotGroupable("there is no assert statement")
    if sources:
        groups[-1] = "\n".join([groups[-1], *sources])
    return tuple(groups)


def group_check(source: str, entry_point: str) -> Tests:
    """Groups of the body of `check(candidate)` in a module's source. Raises NotGroupable."""
    module = _parse(source, "check")
    functions = [node for node in module.body if isinstance(node, ast.FunctionDef) and node.name == CHECK]
    if len(functions) != 1:
        raise NotGroupable(f"it must define {CHECK}(candidate) once, at top level")
    check = functions[0]
    names = [argument.arg for argument in ast.walk(check.args) if isinstance(argument, ast.arg)]
    if len(names) != 1 or len(check.args.args) != 1:
        raise NotGroupable(f"{CHECK} must have one argument, the candidate")
    if any(isinstance(node, ast.Yield | ast.YieldFrom | ast.Await) for node in ast.walk(check)):
        raise NotGroupable(f"{CHECK} must be a plain function")
    assigned = {name.id for name in ast.walk(check) if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store)}
    if names[0] in assigned or any(isinstance(node, ast.Global | ast.Nonlocal) for node in ast.walk(check)):
        raise NotGroupable(f"{CHECK} must keep its candidate and have no global names of its own")
    setup = [ast.unparse(node) for node in module.body if node is not check]
    if entry_point in assigned:
        setup.append(f"{names[0]} = {entry_point}")
    else:
        check = _Renamed(names[0], entry_point).visit(check)
    return Tests(setup="\n".join(setup), groups=_cut(check.body))


class _Renamed(ast.NodeTransformer):
    def __init__(self, old: str, new: str) -> None:
        self.old, self.new = old, new

    def visit_Name(self, node: ast.Name) -> ast.Name:
        return ast.Name(self.new, node.ctx) if node.id == self.old else node


def _cut(body: Sequence[ast.stmt]) -> tuple[str, ...]:
    groups: list[list[ast.stmt]] = []
    waiting: list[ast.stmt] = []
    for statement in body:
        waiting.append(statement)
        if _tests_something(statement):
            groups.append(waiting)
            waiting = []
    if not groups:
        raise NotGroupable("there is no assert statement")
    groups[-1] += waiting
    return tuple("\n".join(map(ast.unparse, group)) for group in groups)


def _tests_something(statement: ast.stmt) -> bool:
    """Whether it holds an assert of more than a constant (`assert True` is what empty test files hold)."""
    return any(isinstance(node, ast.Assert) and not isinstance(node.test, ast.Constant) for node in ast.walk(statement))


def _parse(source: str, name: str) -> ast.Module:
    try:
        return ast.parse(source.strip())
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise NotGroupable(f"{name} is not Python: {getattr(error, 'msg', error)}") from None

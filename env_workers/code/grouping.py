"""Cuts a test's source into groups: blocks that are run one after the other in one scope and judged one by one.

Cutting changes nothing of what is run. A group ends with the statement that holds an assert; what stands between two of
them (imports, shared names) belongs to the group after it, and a loop stays whole.
"""

import ast
from collections.abc import Sequence

CHECK = "check"


class NotGroupable(ValueError):
    """Test source that cannot be cut. The message says why."""


def group_asserts(asserts: Sequence[str]) -> tuple[str, ...]:
    """Return the groups of a list of assert statements, each a piece of source. Raises NotGroupable."""
    pieces = []
    for index, source in enumerate(asserts):
        tree = _parse(source, f"asserts[{index}]")
        if any(isinstance(node, ast.ImportFrom) and node.names[0].name == "*" for node in ast.walk(tree)):
            raise NotGroupable(f"asserts[{index}] holds `import *`; allowed: in setup")
        pieces.append((source.strip(), any(map(_tests_something, tree.body))))
    return _grouped(pieces)


def group_check(source: str, entry_point: str) -> tuple[str, tuple[str, ...]]:
    """Cut the body of `check(candidate)` in a module's source: return the source before it, and the groups.

    The groups run in one function's scope. Raises NotGroupable.
    """
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
    return "\n".join(setup), _grouped([(ast.unparse(node), _tests_something(node)) for node in check.body])


class _Renamed(ast.NodeTransformer):
    def __init__(self, old: str, new: str) -> None:
        self.old, self.new = old, new

    def visit_Name(self, node: ast.Name) -> ast.Name:
        return ast.Name(self.new, node.ctx) if node.id == self.old else node


def _grouped(pieces: Sequence[tuple[str, bool]]) -> tuple[str, ...]:
    """Join pieces of source, each with whether it holds an assert, to groups that end with an assert."""
    groups: list[list[str]] = []
    waiting: list[str] = []
    for source, has_assert in pieces:
        waiting.append(source)
        if has_assert:
            groups.append(waiting)
            waiting = []
    if not groups:
        raise NotGroupable("there is no assert statement")
    groups[-1] += waiting
    return tuple(map("\n".join, groups))


def _tests_something(statement: ast.stmt) -> bool:
    """Whether the statement holds an assert of more than a constant (`assert True` is what empty test files hold)."""
    return any(isinstance(node, ast.Assert) and not isinstance(node.test, ast.Constant) for node in ast.walk(statement))


def _parse(source: str, name: str) -> ast.Module:
    try:
        return ast.parse(source.strip())
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise NotGroupable(f"{name} is not Python: {getattr(error, 'msg', error)}") from None

"""What a proxy of the program's function cannot carry, as far as the tests' source shows it (docs/assert-tests.md)."""

import ast
import builtins
from collections.abc import Collection, Iterator, Sequence

_ITERATORS = ("iter", "map", "filter", "zip", "enumerate", "reversed", "range")


def what_cannot_be_carried(setup: str, groups: Sequence[str], functions: Collection[str]) -> str | None:
    """Return the first thing in the tests that needs the program in the same process; None when there is nothing."""
    trees = [ast.parse(source) for source in (setup, *groups)]
    named = set(dir(builtins)) | set(functions) | {"__name__"} | bound_names(trees)
    for tree in trees:
        for reason in _reasons(tree, frozenset(functions)):
            return reason
        for node in ast.walk(tree):
            if isinstance(node, ast.Name) and node.id not in named:
                return f"{node.id}, which only the program can define"
    return None


def _reasons(tree: ast.AST, functions: frozenset[str]) -> Iterator[str]:
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Try | ast.TryStar | ast.With | ast.Raise):
            yield "exceptions as expected results"
        if isinstance(node, ast.Name) and node.id in functions and isinstance(node.ctx, ast.Store):
            yield f"another value for {node.id}"
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in functions:
            yield f"the attribute {node.value.id}.{node.attr} of a function"
        if isinstance(node, ast.Compare) and any(isinstance(op, ast.Is | ast.IsNot) for op in node.ops):
            sides = [node.left, *node.comparators]
            if any(_is_call(s, functions) for s in sides) and not any(isinstance(s, ast.Constant) for s in sides):
                yield "the identity of a value"
        if isinstance(node, ast.Expr) and _is_call(node.value, functions):
            yield "a call for its effect (changes of its arguments, output)"
        if isinstance(node, ast.Call) and _is_call(node, functions):
            for argument in [*node.args, *(keyword.value for keyword in node.keywords)]:
                yield from _bad_argument(argument, functions, called)


def _bad_argument(argument: ast.expr, functions: frozenset[str], called: Collection[int]) -> Iterator[str]:
    if isinstance(argument, ast.GeneratorExp) or (
        isinstance(argument, ast.Call) and isinstance(argument.func, ast.Name) and argument.func.id in _ITERATORS
    ):
        yield "an iterator as an argument"
    for part in _parts(argument):
        if isinstance(part, ast.Lambda):
            yield "a function as an argument"
        if not isinstance(part, ast.Name) or id(part) in called:
            continue
        if part.id in functions or callable(getattr(builtins, part.id, None)):
            yield f"a function or type as an argument ({part.id})"


def _parts(value: ast.expr) -> Iterator[ast.expr]:
    """Yield the value and, of a display (list, tuple, dict ...), its items: what travels as it stands."""
    yield value
    if isinstance(value, ast.List | ast.Tuple | ast.Set):
        for item in value.elts:
            yield from _parts(item)
    elif isinstance(value, ast.Dict):
        for item in value.values:
            yield from _parts(item)


def _is_call(node: ast.AST, functions: Collection[str]) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in functions


def bound_names(trees: Sequence[ast.AST]) -> set[str]:
    """Return every name that the source itself binds, in any scope."""
    names = set()
    for tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                names.add(node.id)
            elif isinstance(node, ast.FunctionDef | ast.ClassDef):
                names.add(node.name)
            elif isinstance(node, ast.arg):
                names.add(node.arg)
            elif isinstance(node, ast.Import | ast.ImportFrom):
                names |= {alias.asname or alias.name.partition(".")[0] for alias in node.names}
    return names

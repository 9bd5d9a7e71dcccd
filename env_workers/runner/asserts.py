"""Runs assert-style tests against a program that lives in another sandbox; here its functions are proxies.

`run_asserts` is the judge's side. An outcome of a group is a JSON mapping with a `status`: passed; failed (text, and as
far as they are known call, value or other, expected, message); program (outcome: what a call came to instead of a
value, call, text); unsupported (type: what a proxy cannot carry).
"""

import ast
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from env_workers.runner.codec import UnsupportedError, decode, encode

Ask = Callable[[dict[str, Any]], Any]
MAX_VALUE_BYTES = 2**20
MAX_MESSAGE_CHARS = 1000

_GROUP = """
try:
    pass
except BaseException as __error__:
    yield __error__
else:
    yield None
"""


class ProgramFailed(BaseException):
    """A call of the program gave no value. It is no Exception: `except Exception` in a test must not hide it."""

    def __init__(self, call: dict[str, Any], outcome: dict[str, Any]) -> None:
        super().__init__(outcome.get("status"))
        self.call, self.outcome = call, outcome


class OpaqueValue:
    """A value that did not travel: only its truth is known, and it equals nothing."""

    def __init__(self, truth: bool) -> None:
        self._truth = truth

    def __bool__(self) -> bool:
        return self._truth


class Recorder:
    """Records the call and the values of the assert that is being evaluated."""

    def __init__(self, ask: Ask) -> None:
        self.ask, self.texts = ask, [""]
        self.begin(0)

    def begin(self, index: int) -> None:
        """Start an assert, `index` that of its text. What was seen before is forgotten."""
        self.text = self.texts[index]
        self.seen: dict[str, Any] = {}

    def call(self, function: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return the program's return value.

        Raises ProgramFailed, or UnsupportedError for arguments that cannot travel.
        """
        message = {
            "function": function,
            "args": [encode(value, MAX_VALUE_BYTES) for value in args],
            "kwargs": {name: encode(value, MAX_VALUE_BYTES) for name, value in kwargs.items()},
        }
        reply = self.ask(message)
        status = reply.get("status") if isinstance(reply, dict) else None
        if status == "returned_other":
            self.seen = {"call": message, "other": str(reply.get("type"))}
            return OpaqueValue(reply.get("truth") is True)
        if status != "returned":
            raise ProgramFailed(message, reply if isinstance(status, str) else {"status": "garbled"})
        try:
            value = decode(reply["value"])
        except (KeyError, ValueError):
            raise ProgramFailed(message, {"status": "garbled"}) from None
        self.seen = {"call": message, "value": reply["value"]}
        return value

    def equal(self, left: Any, right: Any) -> Any:
        """Return `left == right`, where one side is the program's answer and the other (here: right) is expected."""
        try:
            self.seen["expected"] = encode(right, MAX_VALUE_BYTES)
        except Exception:
            self.seen.pop("expected", None)  # it cannot be shown as a value; the assert's text shows it
        return left == right

    def equal_reversed(self, left: Any, right: Any) -> Any:
        """Compare as `equal` does, with the expected value on the left."""
        self.equal(right, left)
        return left == right

    def outcome(self, error: BaseException | None) -> dict[str, Any]:
        """Return the outcome of a group that ended with `error`."""
        if error is None:
            return {"status": "passed"}
        if isinstance(error, ProgramFailed):
            return {"status": "program", "outcome": error.outcome, "call": error.call, "text": self.text}
        if isinstance(error, UnsupportedError):
            return {"status": "unsupported", "type": str(error)}
        message = "" if isinstance(error, AssertionError) or "other" in self.seen else _in_words(error)
        return {"status": "failed", "text": self.text, "message": message[:MAX_MESSAGE_CHARS], **self.seen}


def _in_words(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"
    except ValueError:  # the program's value is in it: an int with more digits than Python writes
        return type(error).__name__


def run_asserts(source: str, groups: Sequence[str], functions: Sequence[str], ask: Ask) -> Iterator[dict[str, Any]]:
    """Yield one outcome for each group, in order; fewer when the program cannot be called any more.

    `source` is a module's; the groups are run one after the other in one function's scope, like a test's body.
    """
    recorder = Recorder(ask)
    namespace: dict[str, Any] = {"__name__": "tests", "__recorder__": recorder}
    for name in functions:
        namespace[name] = _proxy(recorder, name)
    exec(compile(source, "tests.py", "exec", dont_inherit=True), namespace)
    exec(compile(_tests_function(groups, functions, recorder), "tests.py", "exec", dont_inherit=True), namespace)
    num_left = len(groups)
    for error in namespace["__tests__"]():
        outcome = recorder.outcome(error)
        yield outcome
        num_left -= 1
        if isinstance(error, ProgramFailed) and error.outcome.get("status") != "raised":
            return  # it may have ended, and calling it again would say so once more
    for _ in range(num_left):  # the tests returned early: the rest was not to be tested
        yield {"status": "passed"}


def _proxy(recorder: Recorder, name: str) -> Callable[..., Any]:
    def proxy(*args: Any, **kwargs: Any) -> Any:
        return recorder.call(name, args, kwargs)

    return proxy


def _tests_function(groups: Sequence[str], functions: Sequence[str], recorder: Recorder) -> ast.Module:
    module = ast.parse("def __tests__():\n    yield")
    function = module.body[0]
    assert isinstance(function, ast.FunctionDef)
    function.body = []
    for text in groups:
        (block,) = ast.parse(_GROUP).body
        assert isinstance(block, ast.Try)
        tree = _Recorded(text, frozenset(functions), recorder.texts).visit(ast.parse(text))
        block.body = tree.body
        function.body.append(block)
    return ast.fix_missing_locations(module)


class _Recorded(ast.NodeTransformer):
    """Rewrites asserts so that the recorder learns which one is evaluated, and both sides of `f(...) == expected`."""

    def __init__(self, source: str, functions: frozenset[str], texts: list[str]) -> None:
        self.source, self.functions, self.texts = source, functions, texts

    def visit_Assert(self, node: ast.Assert) -> list[ast.stmt]:
        """`__recorder__.begin(n)` and the assert."""
        self.texts.append(f"assert {ast.get_source_segment(self.source, node.test)}")
        test = node.test
        if isinstance(test, ast.Compare) and len(test.ops) == 1 and isinstance(test.ops[0], ast.Eq):
            left, right = test.left, test.comparators[0]
            if self._is_call(left) and not self._calls(right):
                node.test = _method("equal", left, right)
            elif self._is_call(right) and not self._calls(left):
                node.test = _method("equal_reversed", left, right)
        return [ast.Expr(_method("begin", ast.Constant(len(self.texts) - 1))), node]

    def _is_call(self, node: ast.expr) -> bool:
        return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in self.functions

    def _calls(self, node: ast.expr) -> bool:
        return any(isinstance(part, ast.Name) and part.id in self.functions for part in ast.walk(node))


def _method(name: str, *arguments: ast.expr) -> ast.Call:
    function = ast.Attribute(ast.Name("__recorder__", ast.Load()), name, ast.Load())
    return ast.Call(function, list(arguments), [])
